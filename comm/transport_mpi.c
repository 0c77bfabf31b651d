/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport over MPI, in a module of its own that is loaded when ranks
 * meet: a daemon of one process has nothing of MPI in it.
 *
 * Control messages and bulk have a communicator each, so that neither waits
 * for the other. No collective operation after the exchange, and no RMA: a
 * lost rank must not be waited for. MPI_Finalize does not wait for the others
 * either (async_mpi_finalize), since a rank may leave while others stay.
 */
#include "comm/transport_mpi.h"

#include "comm/message.h"

#include <errno.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_AT_ONCE = 16 };

struct mpi_operation {
	enum transport_event_kind kind;
	void *cookie;
	unsigned rank;
};

struct transport_mpi {
	struct transport base;		/* first: passed as this */
	MPI_Comm control, bulk;
	/* Under way, side by side. */
	unsigned count, capacity;
	MPI_Request *requests;		/* owned, as are all */
	struct mpi_operation *operations;
	int *indices;
	MPI_Status *statuses;
	unsigned char messages[MESSAGES_AT_ONCE][MESSAGE_SIZE_MAX];
};

/* The only place where codes of MPI become ours. */
static int to_errno(int code)
{
	int class = MPI_ERR_OTHER;

	if (code == MPI_SUCCESS)
		return 0;
	MPI_Error_class(code, &class);
	return class == MPI_ERR_TRUNCATE ? -EPROTO :
	       class == MPI_ERR_NO_MEM ? -ENOMEM : -EIO;
}

/* ---- operations ---------------------------------------------------------- */

static int grow(struct transport_mpi *t)
{
	unsigned capacity = t->capacity ? 2 * t->capacity : 256;
	void *requests = realloc(t->requests, capacity * sizeof(*t->requests));
	void *operations, *indices, *statuses;

	if (requests)
		t->requests = requests;
	operations = realloc(t->operations, capacity * sizeof(*t->operations));
	if (operations)
		t->operations = operations;
	indices = realloc(t->indices, capacity * sizeof(*t->indices));
	if (indices)
		t->indices = indices;
	statuses = realloc(t->statuses, capacity * sizeof(*t->statuses));
	if (statuses)
		t->statuses = statuses;
	if (!requests || !operations || !indices || !statuses)
		return -ENOMEM;
	t->capacity = capacity;
	return 0;
}

/* Room for one more; its request. NULL: no memory. */
static MPI_Request *add(struct transport_mpi *t, enum transport_event_kind kind,
			unsigned rank, void *cookie)
{
	if (t->count == t->capacity && grow(t))
		return NULL;
	t->operations[t->count] = (struct mpi_operation){ kind, cookie, rank };
	return &t->requests[t->count];
}

/* Count it, if MPI has taken it. */
static int finish_add(struct transport_mpi *t, int code)
{
	if (code == MPI_SUCCESS)
		t->count++;
	return to_errno(code);
}

static void drop(struct transport_mpi *t, unsigned index)
{
	t->count--;
	t->requests[index] = t->requests[t->count];
	t->operations[index] = t->operations[t->count];
}

static int mpi_send(struct transport *transport, unsigned rank,
		    const void *data, size_t size, void *cookie)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;
	MPI_Request *request = add(t, TRANSPORT_SENT, rank, cookie);

	if (!request)
		return -ENOMEM;
	return finish_add(t, MPI_Isend(data, (int)size, MPI_BYTE, (int)rank, 0,
				       t->control, request));
}

static int mpi_send_bulk(struct transport *transport,
			 const struct transport_bulk *bulk, void *cookie)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;
	MPI_Request *request = add(t, TRANSPORT_SENT, bulk->rank, cookie);

	if (!request)
		return -ENOMEM;
	return finish_add(t, MPI_Isend(bulk->data, (int)bulk->size, MPI_BYTE,
				       (int)bulk->rank, (int)bulk->tag,
				       t->bulk, request));
}

static int mpi_receive_bulk(struct transport *transport,
			    const struct transport_bulk *bulk, void *cookie)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;
	MPI_Request *request = add(t, TRANSPORT_RECEIVED, bulk->rank, cookie);

	if (!request)
		return -ENOMEM;
	return finish_add(t, MPI_Irecv(bulk->data, (int)bulk->size, MPI_BYTE,
				       (int)bulk->rank, (int)bulk->tag,
				       t->bulk, request));
}

static void mpi_forget(struct transport *transport, unsigned rank)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;
	unsigned i = 0;

	while (i < t->count) {
		if (t->operations[i].rank != rank) {
			i++;
			continue;
		}
		if (t->operations[i].kind == TRANSPORT_RECEIVED)
			MPI_Cancel(&t->requests[i]);
		MPI_Request_free(&t->requests[i]);
		drop(t, i);
	}
}

/* ---- polling ------------------------------------------------------------- */

/* What is longer than any message is received, and thrown away. */
static void discard(MPI_Message *message, int size)
{
	void *buffer = malloc((size_t)size);

	if (!buffer)
		abort();
	MPI_Mrecv(buffer, size, MPI_BYTE, message, MPI_STATUS_IGNORE);
	free(buffer);
}

static unsigned poll_messages(struct transport_mpi *t,
			      struct transport_event *events, unsigned max)
{
	unsigned count = 0;

	while (count < max && count < MESSAGES_AT_ONCE) {
		MPI_Message message;
		MPI_Status status;
		int found = 0, size;

		if (MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, t->control,
				&found, &message, &status) || !found)
			break;
		MPI_Get_count(&status, MPI_BYTE, &size);
		if (size < 0 || size > MESSAGE_SIZE_MAX) {
			discard(&message, size);
			continue;
		}
		if (MPI_Mrecv(t->messages[count], size, MPI_BYTE, &message,
			      MPI_STATUS_IGNORE))
			continue;
		events[count] = (struct transport_event){
			.kind = TRANSPORT_MESSAGE,
			.rank = (unsigned)status.MPI_SOURCE,
			.data = t->messages[count], .size = (size_t)size,
		};
		count++;
	}
	return count;
}

static void fill_event(const struct transport_mpi *t, unsigned index,
		       const MPI_Status *status, int code,
		       struct transport_event *event)
{
	const struct mpi_operation *operation = &t->operations[index];
	int size = 0;

	*event = (struct transport_event){
		.kind = operation->kind, .cookie = operation->cookie,
		.rank = operation->rank, .error = to_errno(code),
	};
	if (!event->error && operation->kind == TRANSPORT_RECEIVED) {
		MPI_Get_count(status, MPI_BYTE, &size);
		event->size = size > 0 ? (size_t)size : 0;
	}
}

static int compare_down(const void *a, const void *b)
{
	return *(const int *)b - *(const int *)a;
}

static unsigned poll_operations(struct transport_mpi *t,
				struct transport_event *events, unsigned max)
{
	int count = 0, code, i;
	unsigned filled = 0;

	if (t->count == 0 || max == 0)
		return 0;
	/* No more than there is room for events. */
	code = MPI_Testsome((int)(t->count < max ? t->count : max),
			    t->requests, &count, t->indices, t->statuses);
	if (count == MPI_UNDEFINED || count <= 0)
		return 0;
	for (i = 0; i < count; i++)
		fill_event(t, (unsigned)t->indices[i], &t->statuses[i],
			   code == MPI_SUCCESS ? MPI_SUCCESS :
			   t->statuses[i].MPI_ERROR, &events[filled++]);
	/* From the back: the last one takes the place of what is dropped. */
	qsort(t->indices, (size_t)count, sizeof(*t->indices), compare_down);
	for (i = 0; i < count; i++)
		drop(t, (unsigned)t->indices[i]);
	return filled;
}

static unsigned mpi_poll(struct transport *transport,
			 struct transport_event *events, unsigned max)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;
	unsigned count = poll_messages(t, events, max);

	return count + poll_operations(t, events + count, max - count);
}

/* ---- life ---------------------------------------------------------------- */

static int mpi_exchange(struct transport *transport, const void *mine,
			size_t size, void *all)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;

	return to_errno(MPI_Allgather(mine, (int)size, MPI_BYTE, all,
				      (int)size, MPI_BYTE, t->control));
}

static void mpi_destroy(struct transport *transport)
{
	struct transport_mpi *t = (struct transport_mpi *)transport;

	MPI_Finalize();
	free(t->requests);
	free(t->operations);
	free(t->indices);
	free(t->statuses);
	free(t);
}

static int duplicate(MPI_Comm *comm)
{
	int code = MPI_Comm_dup(MPI_COMM_WORLD, comm);

	if (code == MPI_SUCCESS)
		code = MPI_Comm_set_errhandler(*comm, MPI_ERRORS_RETURN);
	return to_errno(code);
}

int transport_mpi_create(struct transport **ret_transport)
{
	struct transport_mpi *t = calloc(1, sizeof(*t));
	int provided, rank, count, error;

	if (!t)
		return -ENOMEM;
	setenv("OMPI_MCA_async_mpi_finalize", "1", 0);
	if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) ||
	    provided < MPI_THREAD_FUNNELED) {
		free(t);
		return -EIO;
	}
	MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &count);
	t->base = (struct transport){
		.rank = (unsigned)rank, .count = (unsigned)count,
		.send = mpi_send, .send_bulk = mpi_send_bulk,
		.receive_bulk = mpi_receive_bulk, .forget = mpi_forget,
		.poll = mpi_poll, .exchange = mpi_exchange,
		.destroy = mpi_destroy,
	};
	error = duplicate(&t->control);
	if (!error)
		error = duplicate(&t->bulk);
	if (error) {
		mpi_destroy(&t->base);
		return error;
	}
	*ret_transport = &t->base;
	return 0;
}
