/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over files, and over all files of folders. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

static unsigned run_count;

static void run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat status;
	uint8_t *data;
	size_t size;

	CHECK(file && fstat(fileno(file), &status) == 0);
	size = (size_t)status.st_size;
	/* Exactly as large, so that a sanitizer sees a read behind it. */
	data = malloc(size ? size : 1);
	CHECK(data && fread(data, 1, size, file) == size);
	fclose(file);
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	run_count++;
}

static void run_folder(const char *folder)
{
	struct dirent **entries;
	int count = scandir(folder, &entries, NULL, alphasort), i;
	char path[4096];

	CHECK(count >= 0);
	for (i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;
		int size = snprintf(path, sizeof(path), "%s/%s", folder, name);

		CHECK(size > 0 && (size_t)size < sizeof(path));
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
			run_file(path);
		free(entries[i]);
	}
	free(entries);
}

int main(int argc, char **argv)
{
	struct stat status;
	int i;

	for (i = 1; i < argc; i++) {
		CHECK(stat(argv[i], &status) == 0);
		if (S_ISDIR(status.st_mode))
			run_folder(argv[i]);
		else
			run_file(argv[i]);
	}
	fprintf(stderr, "%u inputs\n", run_count);
	return run_count == 0;
}
