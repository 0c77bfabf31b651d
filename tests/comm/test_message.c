/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of control messages, good and bad. */
#include "support/test.h"

#include "comm/message.h"

#include <errno.h>
#include <string.h>

/* A message of @size bytes of payload, somewhere in the file. */
static unsigned char bytes[MESSAGE_SIZE_MAX + 1];

static int check_size(const struct message *message, size_t size)
{
	struct message found;
	int error;

	memcpy(bytes, message, sizeof(*message));
	memset(&found, 0x5a, sizeof(found));
	error = message_check(bytes, size, &found);
	if (error) {
		/* Untouched. */
		assert_int_equal(error, -EPROTO);
		assert_int_equal(found.magic, 0x5a5a5a5a);
	} else {
		assert_memory_equal(&found, message, sizeof(found));
	}
	return error;
}

static int check(const struct message *message)
{
	return check_size(message, sizeof(*message) + message->size);
}

static struct message request(unsigned service, uint32_t size)
{
	struct message message;

	message_init(&message, MESSAGE_REQUEST, UINT64_C(0x123456789abcdef));
	message.service = (uint16_t)service;
	message.time_ms = UINT32_MAX;
	message.size = size;
	return message;
}

static struct message answer(int error)
{
	struct message message;

	message_init(&message, MESSAGE_ANSWER, UINT64_MAX);
	message.error = error;
	return message;
}

static void good_messages(void **state)
{
	struct message message;
	unsigned service;

	(void)state;
	for (service = 1; service < SERVICE_COUNT; service++) {
		message = request(service, 0);
		assert_int_equal(check(&message), 0);
		message = request(service, MESSAGE_PAYLOAD_MAX);
		assert_int_equal(check(&message), 0);
	}
	message = answer(0);
	assert_int_equal(check(&message), 0);
	message = answer(-1);
	assert_int_equal(check(&message), 0);
	message = answer(-4095);
	assert_int_equal(check(&message), 0);
	assert_int_equal(message_slot(UINT64_C(0x123456789abcdef)), 0xcdef);
}

static void bad_sizes(void **state)
{
	struct message message = request(SERVICE_LIST, 10);
	size_t size;

	(void)state;
	for (size = 0; size < sizeof(message) + 30; size++)
		assert_int_equal(check_size(&message, size),
				 size == sizeof(message) + 10 ? 0 : -EPROTO);
	message = request(SERVICE_LIST, MESSAGE_PAYLOAD_MAX + 1);
	assert_int_equal(check(&message), -EPROTO);
	message = request(SERVICE_LIST, UINT32_MAX);
	assert_int_equal(check_size(&message, MESSAGE_SIZE_MAX), -EPROTO);
}

static void bad_requests(void **state)
{
	struct message message = request(0, 0);

	(void)state;
	assert_int_equal(check(&message), -EPROTO);
	message = request(SERVICE_COUNT, 0);
	assert_int_equal(check(&message), -EPROTO);
	message = request(UINT16_MAX, 0);
	assert_int_equal(check(&message), -EPROTO);
	message = request(SERVICE_LIST, 0);
	message.error = -EIO;
	assert_int_equal(check(&message), -EPROTO);
	message = request(SERVICE_LIST, 0);
	message.reserved = 1;
	assert_int_equal(check(&message), -EPROTO);
	message = request(SERVICE_LIST, 0);
	message.magic++;
	assert_int_equal(check(&message), -EPROTO);
}

static void bad_answers(void **state)
{
	struct message message = answer(1);

	(void)state;
	assert_int_equal(check(&message), -EPROTO);
	message = answer(-4096);
	assert_int_equal(check(&message), -EPROTO);
	message = answer(INT32_MIN);
	assert_int_equal(check(&message), -EPROTO);
	message = answer(0);
	message.service = SERVICE_LIST;
	assert_int_equal(check(&message), -EPROTO);
	message = answer(0);
	message.size = 1;
	assert_int_equal(check(&message), -EPROTO);
	message = answer(0);
	message.reserved = UINT32_MAX;
	assert_int_equal(check(&message), -EPROTO);
}

static void bad_kinds(void **state)
{
	struct message message = answer(0);
	unsigned kind;

	(void)state;
	for (kind = 0; kind <= UINT16_MAX; kind++) {
		message.kind = (uint16_t)kind;
		assert_int_equal(check(&message),
				 kind >= MESSAGE_ANSWER && kind <= MESSAGE_PONG ?
				 0 : -EPROTO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_messages),
		cmocka_unit_test(bad_sizes),
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(bad_answers),
		cmocka_unit_test(bad_kinds),
	};

	return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
