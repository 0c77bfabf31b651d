/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How ranks meet: each tells all others who it is, and whoever differs in
 * what must be the same is refused by all, for the same reason.
 */
#ifndef COMM_HANDSHAKE_H
#define COMM_HANDSHAKE_H

#include "comm/doorbell.h"
#include "comm/transport.h"

#include <sys/types.h>

/* What a rank says of itself. Its size, and what stands up to `settings`,
 * never change: ranks of different versions must be able to tell. */
struct hello {
	uint64_t magic;
	char version[64];
	char settings[256];
	uint32_t protocol;
	int32_t pid;
	uint64_t nonce;			/* that of rank 0 is the job's */
	uint64_t machine;		/* equal on one host, see handshake.c */
	uint64_t store_device, store_inode;
	char host[64];
	char store[1024];		/* absolute path */
	struct doorbell_address bell;
	uint64_t point;			/* hash of the mount point's path */
	uint8_t reserved[504];
};

_Static_assert(sizeof(struct hello) == 2008, "it travels, to any version");

/* What a hello is made from; all is borrowed. */
struct handshake_options {
	const char *version, *settings;
	const char *store, *point;	/* absolute paths */
	int store_fd;			/* the folder `store` */
};

/* Fill in all but `bell`. */
void handshake_hello(const struct handshake_options *options,
		     struct hello *hello);

/* Meet: @ret_hellos is one of each rank. 0; -EPROTO when they do not fit
 * together, with a sentence in @trouble; -errno. */
int meet(struct transport *transport, const struct hello *mine,
	 struct hello *ret_hellos, char trouble[1024]);

/* The store of another rank on this host: a descriptor, or -1 when it is on
 * another host or cannot be opened from here. */
int handshake_open_store(const struct hello *mine, const struct hello *other);

#endif
