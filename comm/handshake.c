/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/handshake.h"

#include "comm/message.h"
#include "shard/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t hello_magic = UINT64_C(0x6f6c6c6568706b63);

/*
 * Ranks of one host have booted together, and see the same network and the
 * same mounts: those of two containers do not share a host here.
 */
static uint64_t find_machine(void)
{
	static const char *const spaces[] = {
		"/proc/self/ns/net", "/proc/self/ns/mnt",
	};
	char boot[64] = "";
	uint64_t machine;
	struct stat status;
	size_t i;
	int fd = open("/proc/sys/kernel/random/boot_id",
		      O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, boot, sizeof(boot) - 1) < 0)
		boot[0] = '\0';
	if (fd >= 0)
		close(fd);
	machine = hash_64(boot, sizeof(boot), 0);
	for (i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (stat(spaces[i], &status) == 0)
			machine = hash_64(&status.st_ino,
					    sizeof(status.st_ino), machine);
	return machine;
}

/* Where it is cut, a hash tells long ones apart. */
static void set_settings(struct hello *hello, const char *settings)
{
	char *end = hello->settings + sizeof(hello->settings) - 24;
	int size = snprintf(hello->settings, sizeof(hello->settings), "%s",
			    settings);

	if (size >= (int)sizeof(hello->settings))
		snprintf(end, 24, "...%016" PRIx64,
			 hash_64(settings, strlen(settings), 0));
}

void handshake_hello(const struct handshake_options *options,
		     struct hello *hello)
{
	struct stat status = { .st_dev = 0 };

	memset(hello, 0, sizeof(*hello));
	hello->magic = hello_magic;
	hello->protocol = MESSAGE_PROTOCOL;
	hello->pid = getpid();
	hello->nonce = hash_seed();
	hello->machine = find_machine();
	hello->point = hash_64(options->point, strlen(options->point), 0);
	if (fstat(options->store_fd, &status) == 0) {
		hello->store_device = status.st_dev;
		hello->store_inode = status.st_ino;
	}
	snprintf(hello->version, sizeof(hello->version), "%s",
		 options->version);
	snprintf(hello->store, sizeof(hello->store), "%s", options->store);
	set_settings(hello, options->settings);
	gethostname(hello->host, sizeof(hello->host) - 1);
}

/* Texts of others end, and are printable. */
static void clean(char *text, size_t size)
{
	size_t i;

	text[size - 1] = '\0';
	for (i = 0; text[i]; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
}

static void clean_hello(struct hello *hello)
{
	clean(hello->version, sizeof(hello->version));
	clean(hello->settings, sizeof(hello->settings));
	clean(hello->host, sizeof(hello->host));
	hello->store[sizeof(hello->store) - 1] = '\0';
}

static bool check(const struct hello *first, const struct hello *other,
		  unsigned rank, char trouble[1024])
{
	if (other->magic != hello_magic)
		snprintf(trouble, 1024, "rank %u is another program", rank);
	else if (strcmp(first->version, other->version) != 0 ||
		 first->protocol != other->protocol)
		snprintf(trouble, 1024,
			 "rank %u on %s has version %s, rank 0 on %s has %s: all ranks need the same",
			 rank, other->host, other->version, first->host,
			 first->version);
	else if (strcmp(first->settings, other->settings) != 0)
		snprintf(trouble, 1024,
			 "rank %u on %s was started with %s, rank 0 on %s with %s: all ranks need the same",
			 rank, other->host, other->settings, first->host,
			 first->settings);
	else
		return true;
	return false;
}

/* One mount point for two, on one host: they would mount over each other. */
static bool check_point(const struct hello *hellos, unsigned rank,
			char trouble[1024])
{
	unsigned i;

	for (i = 0; i < rank; i++)
		if (hellos[i].machine == hellos[rank].machine &&
		    hellos[i].point == hellos[rank].point) {
			snprintf(trouble, 1024,
				 "ranks %u and %u on %s have the same mount point: with %%r in its name each has its own",
				 i, rank, hellos[i].host);
			return false;
		}
	return true;
}

int meet(struct transport *transport, const struct hello *mine,
	 struct hello *ret_hellos, char trouble[1024])
{
	unsigned i;
	int error = transport->exchange(transport, mine, sizeof(*mine),
					ret_hellos);

	for (i = 0; i < transport->count && !error; i++) {
		clean_hello(&ret_hellos[i]);
		if (!check(&ret_hellos[0], &ret_hellos[i], i, trouble) ||
		    !check_point(ret_hellos, i, trouble))
			error = -EPROTO;
	}
	return error;
}

int handshake_open_store(const struct hello *mine, const struct hello *other)
{
	struct stat status;
	int fd;

	if (mine->machine != other->machine || other->store[0] != '/')
		return -1;
	fd = open(other->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (fstat(fd, &status) == 0 && status.st_dev == other->store_device &&
	    status.st_ino == other->store_inode)
		return fd;
	close(fd);
	return -1;
}
