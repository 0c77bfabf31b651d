/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cluster takes for MPI when it lies beside the test program:
 * ckptfs_mpi.so, whose transport_mpi_create is a function of that program.
 */
#ifndef COMM_SUPPORT_FAKE_MPI_H
#define COMM_SUPPORT_FAKE_MPI_H

#include "comm/transport.h"

/* The test's. */
int fake_mpi_create(struct transport **ret_transport);

#endif
