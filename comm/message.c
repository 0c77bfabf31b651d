/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/message.h"

#include <errno.h>
#include <string.h>

static const uint32_t message_magic = 0x746b6370;

void message_init(struct message *message, enum message_kind kind,
		  uint64_t ticket)
{
	*message = (struct message){
		.magic = message_magic, .kind = (uint16_t)kind,
		.ticket = ticket,
	};
}

int message_check(const void *data, size_t size, struct message *ret_message)
{
	struct message message;

	if (size < sizeof(message) || size > MESSAGE_SIZE_MAX)
		return -EPROTO;
	memcpy(&message, data, sizeof(message));
	if (message.magic != message_magic || message.reserved != 0 ||
	    message.size != size - sizeof(message))
		return -EPROTO;
	switch (message.kind) {
	case MESSAGE_REQUEST:
		if (message.service == 0 || message.service >= SERVICE_COUNT ||
		    message.error != 0)
			return -EPROTO;
		break;
	case MESSAGE_ANSWER:
		/* Errno values fit into 12 bits. */
		if (message.service != 0 || message.size != 0 ||
		    message.error > 0 || message.error < -4095)
			return -EPROTO;
		break;
	case MESSAGE_PING:
	case MESSAGE_PONG:
		if (message.service != 0 || message.size != 0 ||
		    message.error != 0)
			return -EPROTO;
		break;
	default:
		return -EPROTO;
	}
	*ret_message = message;
	return 0;
}
