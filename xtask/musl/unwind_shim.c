/*
 * What gcc's unwinder (libgcc_eh.a, built for glibc) needs besides musl.
 *
 * It finds unwind tables by glibc's _dl_find_object; here dl_iterate_phdr answers. And it reaches
 * the pthread functions by weak references, which take nothing out of a static libc.a: unless
 * something else refers to them strongly, the first unwind would call address 0.
 */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stddef.h>

/* The layout of glibc 2.35's struct dl_find_object. */
struct found_object {
    unsigned long long flags;
    void *map_start;
    void *map_end;
    void *link_map;
    void *unwind_table;
#if defined(__arm__)
    int unwind_table_entries;
    unsigned padding;
#endif
    unsigned long long reserved[7];
};

#if defined(__arm__)
enum { UNWIND_SEGMENT = 0x70000001 }; /* PT_ARM_EXIDX; entries of 8 bytes */
#else
enum { UNWIND_SEGMENT = PT_GNU_EH_FRAME };
#endif

struct search {
    ElfW(Addr) address;
    struct found_object *found;
    int success;
};

static int look_at_object(struct dl_phdr_info *object, size_t size, void *argument)
{
    struct search *search = argument;
    ElfW(Addr) table = 0, start = 0, end = 0;
    size_t table_bytes = 0;
    (void)size;

    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        ElfW(Addr) at = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && search->address - at < segment->p_memsz) {
            start = at;
            end = at + segment->p_memsz;
        } else if (segment->p_type == UNWIND_SEGMENT) {
            table = at;
            table_bytes = segment->p_memsz;
        }
    }
    if (end == 0 || table == 0)
        return 0;

    *search->found = (struct found_object){
        .map_start = (void *)start,
        .map_end = (void *)end,
        .unwind_table = (void *)table,
#if defined(__arm__)
        .unwind_table_entries = (int)(table_bytes / 8),
#endif
    };
    (void)table_bytes;
    search->success = 1;
    return 1;
}

__attribute__((visibility("hidden"))) int _dl_find_object(void *address, struct found_object *found)
{
    struct search search = { .address = (ElfW(Addr))address, .found = found, .success = 0 };
    dl_iterate_phdr(look_at_object, &search);
    return search.success ? 0 : -1;
}

/* The array's type does not matter: only that the references are strong. */
__attribute__((used, visibility("hidden"))) void *const agent_unwind_needs[] = {
    (void *)pthread_mutex_lock,
    (void *)pthread_mutex_unlock,
    (void *)pthread_once,
    (void *)pthread_getspecific,
    (void *)pthread_setspecific,
    (void *)pthread_key_create,
};
