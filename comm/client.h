/* SPDX-License-Identifier: Apache-2.0 */
/* What struct peers offers, by calls of the engine: a part of cluster.c. */
#ifndef COMM_CLIENT_H
#define COMM_CLIENT_H

#include "comm/engine.h"

struct client {
	struct peers peers;
	struct engine *engine;		/* owned; NULL before all have met */
};

/* Without an engine yet; all but what the cluster itself knows. */
int client_init(struct client *client, unsigned rank, unsigned count);
void client_finish(struct client *client);

#endif
