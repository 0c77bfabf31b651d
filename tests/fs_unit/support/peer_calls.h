/* SPDX-License-Identifier: Apache-2.0 */
/* What one rank asks of another through its struct peers, in plain types. */
#ifndef SUPPORT_PEER_CALLS_H
#define SUPPORT_PEER_CALLS_H

#include "shard/store/peers.h"

/* The names in the folder @path of @asked, or, if @of is not PEERS_OWN, of rank
 * @of as @asked remembers it: in the order in which they came, with line ends;
 * the caller frees them. 0 or -errno. */
int peer_calls_list(unsigned asker, unsigned asked, uint32_t of,
		    const char *path, char **ret_names);
/* What @path is, by the name in the answer; of a link also its target. */
int peer_calls_status(unsigned asker, unsigned asked, const char *path,
		      struct stat *ret_status, char ret_name[256],
		      char ret_target[4096]);

/* The pin of a file that is in the store of @rank. */
struct pin peer_calls_pin(unsigned rank, const char *path);

/* The catalog with the metadata @signature of the checkpoint @path, from the
 * ranks above, or from whoever has @kept it: its hash, as in status.json. */
int peer_calls_catalog(unsigned asker, const char *path, uint64_t signature,
		       bool kept, char ret_hash[33]);

#endif
