/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/mounted.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_FILE = 2 * VIEW_COUNT };
/* A size that was found out, plus SIZE_SOME. */
enum { SIZE_UNKNOWN, SIZE_NONE, SIZE_SOME };

/* Views whose files are numbered by tensor, in the order of their numbers. */
static const enum view numbered[] = {
	VIEW_TENSORS, VIEW_NPY, VIEW_F32, VIEW_SAFETENSORS,
};

enum { NUMBERED_COUNT = sizeof(numbered) / sizeof(numbered[0]) };

uint64_t mounted_inode_count(const struct checkpoint *checkpoint)
{
	return FIRST_FILE + NUMBERED_COUNT * checkpoint->catalog->tensor_count +
	       2 * checkpoint->catalog->object_count;
}

struct mounted *mounted_create(struct checkpoint *checkpoint, const char *path,
			       uint64_t folder,
			       const struct inode_ops *const *ops,
			       uint64_t base)
{
	uint64_t objects = checkpoint->catalog->object_count;
	struct mounted *mounted = calloc(1, sizeof(*mounted));

	if (!mounted) {
		checkpoint_close(checkpoint);
		return NULL;
	}
	mounted->checkpoint = checkpoint;
	mounted->folder = folder;
	mounted->ops = ops;
	mounted->base = base;
	mounted->count = mounted_inode_count(checkpoint);
	mounted->text_fd = -1;
	LIST_INIT(&mounted->opens);
	pthread_mutex_init(&mounted->text_lock, NULL);
	pthread_mutex_init(&mounted->groups_lock, NULL);
	mounted->path = strdup(path);
	mounted->sizes = calloc(2 * objects + 1, sizeof(*mounted->sizes));
	if (mounted->path && mounted->sizes)
		return mounted;
	mounted_destroy(mounted);
	return NULL;
}

void mounted_destroy(struct mounted *mounted)
{
	if (!mounted)
		return;
	if (mounted->text_fd >= 0)
		close(mounted->text_fd);
	pthread_mutex_destroy(&mounted->text_lock);
	pthread_mutex_destroy(&mounted->groups_lock);
	array_finish(&mounted->groups);
	checkpoint_close(mounted->checkpoint);
	free(mounted->sizes);
	free(mounted->path);
	free(mounted);
}

/* ---- numbers ------------------------------------------------------------- */

uint64_t mounted_file_number(const struct mounted *mounted,
			     const struct view_file *file)
{
	uint64_t tensors = mounted->checkpoint->catalog->tensor_count;
	uint64_t first = mounted->base + FIRST_FILE, i;

	for (i = 0; i < NUMBERED_COUNT; i++)
		if (file->view == numbered[i])
			return first + i * tensors + file->entry;
	return first + NUMBERED_COUNT * tensors +
	       2 * (file->entry - tensors) + file->json;
}

void mounted_inode(struct mounted *mounted, uint64_t number,
		   struct view_inode *ret_inode)
{
	uint64_t index = number - mounted->base;
	enum mounted_kind kind = MOUNTED_FILE;

	assert(index < mounted->count);
	if (index < VIEW_COUNT)
		kind = index == VIEW_JSON ? MOUNTED_TEXT : MOUNTED_VIEW;
	else if (index < FIRST_FILE)
		kind = MOUNTED_LINK;
	*ret_inode = (struct view_inode){
		.base = { mounted->ops[kind], number }, .mounted = mounted,
	};
}

enum view mounted_view(const struct view_inode *inode)
{
	uint64_t index = inode->base.number - inode->mounted->base;

	assert(index < FIRST_FILE);
	return (enum view)(index % VIEW_COUNT);
}

void mounted_file(const struct mounted *mounted, uint64_t number,
		  struct view_file *ret_file)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;
	uint64_t tensors = catalog->tensor_count;
	uint64_t index = number - mounted->base - FIRST_FILE;

	if (index < NUMBERED_COUNT * tensors) {
		view_whole(catalog, numbered[index / tensors],
			   index % tensors, false, ret_file);
		return;
	}
	index -= NUMBERED_COUNT * tensors;
	view_whole(catalog, VIEW_OBJECTS, tensors + index / 2, index % 2,
		   ret_file);
}

/* ---- what is made when first needed --------------------------------------- */

/* Find out: the text is made, and thrown away. */
static int find_size(struct mounted *mounted, const struct view_file *file,
		     uint64_t *ret_known)
{
	struct array text = { .data = NULL };
	int error;

	if (file->json)
		error = view_object_json(mounted->checkpoint, file->entry, &text);
	else
		error = view_object(mounted->checkpoint, file->entry, &text);
	*ret_known = error ? SIZE_NONE : text.size + SIZE_SOME;
	array_finish(&text);
	if (error == -EOPNOTSUPP || (!file->json && error == -EIO))
		return 0;
	return error;
}

int mounted_object_size(struct mounted *mounted, const struct view_file *file,
		     bool nowait, uint64_t *ret_size)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;
	uint64_t index = 2 * (file->entry - catalog->tensor_count) +
			 file->json;
	uint64_t known = atomic_load(&mounted->sizes[index]);
	int error;

	if (known == SIZE_UNKNOWN) {
		if (nowait)
			return -EAGAIN;
		error = find_size(mounted, file, &known);
		if (error)
			return error;
		atomic_store(&mounted->sizes[index], known);
	}
	if (known != SIZE_NONE)
		*ret_size = known - SIZE_SOME;
	else if (!file->json)
		/* It is there, but cannot be read. */
		*ret_size = catalog_entry(catalog, file->entry)->size;
	else
		return -ENOENT;
	return 0;
}

int mounted_text(struct mounted *mounted, bool nowait, int *ret_fd,
		      uint64_t *ret_size)
{
	int error = 0;

	/* Held while the text is made: whoever else wants it has to wait for
	 * it anyway, on a thread that may. */
	if (nowait ? pthread_mutex_trylock(&mounted->text_lock) :
		     pthread_mutex_lock(&mounted->text_lock))
		return -EAGAIN;
	if (mounted->text_fd < 0)
		error = nowait ? -EAGAIN :
			view_tensors_json(mounted->checkpoint,
					  &mounted->text_fd,
					  &mounted->text_size);
	*ret_fd = mounted->text_fd;
	*ret_size = mounted->text_size;
	pthread_mutex_unlock(&mounted->text_lock);
	return error;
}

int mounted_groups(struct mounted *mounted, const struct array **ret_groups)
{
	int error = 0;

	pthread_mutex_lock(&mounted->groups_lock);
	if (!mounted->grouped) {
		error = view_group_list(mounted->checkpoint->catalog,
					&mounted->groups);
		mounted->grouped = !error;
		if (error)
			mounted->groups.size = 0;
	}
	pthread_mutex_unlock(&mounted->groups_lock);
	*ret_groups = &mounted->groups;
	return error;
}

void mounted_status(const struct mounted *mounted, mode_t type, uint64_t size,
		 struct stat *ret_status)
{
	struct pin pin = *checkpoint_marker_pin(mounted->checkpoint);
	mode_t mode = pin.mode & 0444;

	pin.size = size;
	pin.links = type == S_IFDIR ? 2 : 1;
	pin_status(&pin, ret_status);
	ret_status->st_dev = 0;
	ret_status->st_blksize = 1024 * 1024;
	if (type == S_IFDIR)
		/* Who may read may search. Nobody can write here, but copies
		 * of the folder should be the owner's to change. */
		mode |= (mode & 0444) >> 2 | 0200;
	else if (type == S_IFLNK)
		mode = 0777;
	ret_status->st_mode = type | mode;
}

int mounted_file_status(struct mounted *mounted, const struct view_file *file,
			bool nowait, struct stat *ret_status)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;
	uint64_t size = 0;
	int error = 0;

	if (file->content)
		size = virtual_file_size(file->content);
	else if (file->json || view_is_decoded(catalog, file))
		error = mounted_object_size(mounted, file, nowait, &size);
	else
		error = view_size(catalog, file, &size);
	if (!error)
		mounted_status(mounted, S_IFREG, size, ret_status);
	return error;
}
