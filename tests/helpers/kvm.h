/*
 * kvm.h - what the tests' guests have in common on every architecture: to open /dev/kvm, what KVM
 * itself counted, and to wait for stdin.  Includes what that needs.
 */

#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* Opens /dev/kvm. */
static inline int open_kvm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0)
        err(1, "/dev/kvm");
    return kvm;
}

/* What KVM counted by this name; 0 if it does not count that.  stats is of KVM_GET_STATS_FD. */
static inline uint64_t statistic(int stats, const char *name)
{
    struct kvm_stats_header h;
    uint64_t value = 0;

    if (pread(stats, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
        err(1, "KVM_GET_STATS_FD");
    for (uint32_t i = 0; i < h.num_desc; i++) {
        union {
            struct kvm_stats_desc d; /* as the kernel has it */
            char bytes[512];         /* its name ends within these */
        } desc;
        size_t size = sizeof(desc.d) + h.name_size;
        if (pread(stats, &desc, size, (off_t)(h.desc_offset + i * size)) != (ssize_t)size)
            err(1, "statistic %s", name);
        if (strcmp(desc.d.name, name) == 0 &&
            pread(stats, &value, 8, (off_t)(h.data_offset + desc.d.offset)) != 8)
            err(1, "statistic %s", name);
    }
    return value;
}

/* Waits for a line, or the end, of stdin. */
static inline void await_stdin(void)
{
    char c;

    while (read(0, &c, 1) == 1 && c != '\n')
        ;
}
