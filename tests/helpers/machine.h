/*
 * machine.h - what the tests' guests have in common: to make a virtual machine and
 * its vCPUs, and what KVM itself counted of one.  Includes what that needs.  x86 only.
 */

#include "kvm.h"
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/types.h>

#define RAM_SIZE 0x80000u /* bytes of guest memory, from address 0 */
#define CODE 0x1000u      /* the program's guest physical address, where vCPUs begin */

/* The columns of a row, by KVM's names for them. */
static const char *const wanted[] = {"exits", "halt_exits", "irq_exits", "irq_window_exits",
    "io_exits", "mmio_exits", "irq_injections", "insn_emulation", "pf_fixed"};
#define NWANTED (sizeof(wanted) / sizeof(wanted[0]))

/* Makes a machine with memory, of which *ram is the address here; gives its descriptor. */
static inline int make_machine(int kvm, uint8_t **ram)
{
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);

    if (vm < 0)
        err(1, "KVM_CREATE_VM");
    *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (*ram == MAP_FAILED)
        err(1, "mmap of the guest's memory");
    struct kvm_userspace_memory_region region = {
        .memory_size = RAM_SIZE, .userspace_addr = (uintptr_t)*ram};
    if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000) < 0 ||
        ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        err(1, "KVM_SET_USER_MEMORY_REGION");
    return vm;
}

/* The bytes of a vCPU's page that it shares with KVM. */
static inline size_t run_size(int kvm)
{
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    if (size < 0)
        err(1, "KVM_GET_VCPU_MMAP_SIZE");
    return (size_t)size;
}

/* Makes vCPU id of vm, about to run what is at CODE; gives its descriptor, and sets *run. */
static inline int make_vcpu(int kvm, int vm, int id, struct kvm_run **run)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = 0x7000};
    int fd = ioctl(vm, KVM_CREATE_VCPU, id);

    if (fd < 0)
        err(1, "KVM_CREATE_VCPU");
    *run = mmap(NULL, run_size(kvm), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*run == MAP_FAILED)
        err(1, "mmap of vCPU %d", id);
    if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
        err(1, "KVM_GET_SREGS");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
        err(1, "KVM_SET_REGS");
    return fd;
}

/* Prints what KVM counted for vCPU id, whose descriptor is vcpu: pid, id, a field for each of
   wanted. */
static inline void print_stats(int vcpu, int id)
{
    int stats = ioctl(vcpu, KVM_GET_STATS_FD, NULL);

    if (stats < 0)
        err(1, "KVM_GET_STATS_FD");
    printf("%d\t%d", (int)getpid(), id);
    for (size_t w = 0; w < NWANTED; w++)
        printf("\t%llu", (unsigned long long)statistic(stats, wanted[w]));
    printf("\n");
    close(stats);
}
