/* SPDX-License-Identifier: Apache-2.0 */
/* Answers requests of other ranks by the handlers that main wires. */
#ifndef COMM_SERVER_H
#define COMM_SERVER_H

#include "comm/engine.h"

/* Read @request, have it handled, and answer it; it is gone then. May block. */
void server_run(const struct peer_handlers *handlers,
		struct engine_request *request);

#endif
