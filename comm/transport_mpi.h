/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMM_TRANSPORT_MPI_H
#define COMM_TRANSPORT_MPI_H

#include "comm/transport.h"

/* Start MPI, which blocks until all ranks do, and make a transport of it on
 * this thread, which is then the only one that may use it. 0 or -errno. */
int transport_mpi_create(struct transport **ret_transport);

#endif
