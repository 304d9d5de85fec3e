/*
 * risc-guest - a tiny virtual machine monitor for arm64 and riscv64 hosts
 *
 * Each vCPU runs the program below: so many halts, MMIO writes, MMIO reads, calls of the
 * hypervisor, first touches of pages and turns of an empty loop as the options say.  When all are
 * done, what KVM itself counted for each vCPU (KVM_GET_STATS_FD) goes to stdout: pid, vCPU, exits,
 * halts, exits for MMIO; and the calls that the program made.
 */

#define _GNU_SOURCE
#include "kvm.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define MAX_VCPUS 8
#define RAM UINT64_C(0x80000000)  /* guest physical address of memory */
#define RAM_SIZE 0x1000000u       /* bytes of it */
#define CODE 0x1000u              /* offset in memory of the program */
#define TOUCH 0x200000u           /* bytes of memory before those of vCPU 0 to touch, and of each */
#define MMIO UINT64_C(0x10000000) /* a page with no memory behind it; the program's offsets: */
#define MMIO_PLAIN 0x10           /* an access that means nothing */
#define MMIO_WOKEN 0x20           /* the vCPU was woken: its interrupt can go */
#define MMIO_DONE 0x30            /* the program is at its end */

/* What the program does, in its order: how often, by option. */
enum work { HALTS, WRITES, READS, CALLS, TOUCHES, SPINS, NWORKS };
static const char work_letters[] = "hmrcts";
static uint64_t works[NWORKS];

/*
 * The program, and the registers that it begins with, by their index in the core registers that
 * KVM_SET_ONE_REG sets: WORK has the first of works, and those behind it the others.
 */
#ifdef __aarch64__
#define REGISTER_ID (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | (uint64_t)KVM_REG_ARM_CORE)
#define REGISTER_SIZE 2                                /* ids count words of 4 bytes */
enum { WORK = 19, DEVICE = 25, MEMORY = 26, PC = 32 }; /* x19 to x24, x25, x26, pc */
__asm__(
    ".section .rodata\n"
    ".balign 8\n"
    ".globl program, program_size\n"
    "program:\n"
    "1: cbz x19, 2f; wfi; str w19, [x25, #0x20]; sub x19, x19, #1; b 1b\n"
    "2: cbz x20, 3f; str w20, [x25, #0x10]; sub x20, x20, #1; b 2b\n"
    "3: cbz x21, 4f; ldr w0, [x25, #0x10]; sub x21, x21, #1; b 3b\n"
    "4: cbz x22, 5f; movz x0, #0x8400, lsl #16; hvc #0; sub x22, x22, #1; b 4b\n" /* PSCI_VERSION */
    "5: cbz x23, 6f; str x23, [x26]; add x26, x26, #4096; sub x23, x23, #1; b 5b\n"
    "6: cbz x24, 7f; sub x24, x24, #1; b 6b\n"
    "7: str w24, [x25, #0x30]; b 7b\n"
    "program_end:\n"
    ".balign 8\n"
    "program_size: .quad program_end - program\n"
    ".text\n");
#else
#define REGISTER_ID (KVM_REG_RISCV | KVM_REG_SIZE_U64 | (uint64_t)KVM_REG_RISCV_CORE)
#define REGISTER_SIZE 1 /* ids count registers */
enum { WORK = 18, DEVICE = 24, MEMORY = 25, PC = 0 }; /* s2 to s7, s8, s9, pc */
__asm__(".section .rodata\n"
        ".balign 8\n"
        ".globl program, program_size\n"
        ".option push\n"
        ".option norvc\n"
        "program: li t0, 0x200; csrw sie, t0\n" /* an external interrupt ends a halt */
        "1: beqz s2, 2f; wfi; sw s2, 0x20(s8); addi s2, s2, -1; j 1b\n"
        "2: beqz s3, 3f; sw s3, 0x10(s8); addi s3, s3, -1; j 2b\n"
        "3: beqz s4, 4f; lw t0, 0x10(s8); addi s4, s4, -1; j 3b\n"
        "4: beqz s5, 5f; li a7, 0x10; li a6, 0; ecall; addi s5, s5, -1; j 4b\n" /* SBI version */
        "5: beqz s6, 6f; sd s6, 0(s9); li t0, 4096; add s9, s9, t0; addi s6, s6, -1; j 5b\n"
        "6: beqz s7, 7f; addi s7, s7, -1; j 6b\n"
        "7: sw s7, 0x30(s8); j 7b\n"
        "program_end:\n"
        ".balign 8\n"
        "program_size: .quad program_end - program\n"
        ".option pop\n"
        ".text\n");
#endif
extern const char program[];
extern const uint64_t program_size; /* in bytes */

/* KVM's statistics that make a column. */
static const struct {
    const char *name; /* KVM's */
    int column;       /* index in vcpu.before */
} statistics[] = {{"exits", 0}, {"wfi_exit_stat", 1}, {"wfe_exit_stat", 1}, {"mmio_exit_user", 2},
    {"mmio_exit_kernel", 2}};
#define NCOLUMNS 3

struct vcpu {
    int fd;                    /* the vCPU's descriptor */
    int id;                    /* its number */
    int stats;                 /* descriptor of KVM's statistics of it */
    struct kvm_run *run;       /* its page shared with KVM */
    bool done;                 /* it has written to MMIO_DONE */
    unsigned accesses;         /* its exits for MMIO */
    uint64_t before[NCOLUMNS]; /* the statistics when counting began */
};

static struct vcpu vcpus[MAX_VCPUS];
static int nvcpus = 1;
static int vm;     /* the machine's descriptor */
static bool names; /* name the threads as QEMU does */
static bool move;  /* move to another CPU every few exits */
static bool delay; /* wait for stdin before the first halt ends, and before the threads end */
static sem_t done; /* posted by each vCPU's thread at the program's end */

/* ioctl(); ends the program if it fails. */
static int call(int fd, unsigned long request, const void *argument, const char *what)
{
    int result = ioctl(fd, request, argument);

    if (result < 0)
        err(1, "%s", what);
    return result;
}

/* Raises the interrupt line of v, or lowers it. */
static void set_line(const struct vcpu *v, bool high)
{
#ifdef __aarch64__
    struct kvm_irq_level line = {.irq = KVM_ARM_IRQ_TYPE_CPU << KVM_ARM_IRQ_TYPE_SHIFT |
                                        (uint32_t)v->id << KVM_ARM_IRQ_VCPU_SHIFT |
                                        KVM_ARM_IRQ_CPU_IRQ,
        .level = high};
    call(vm, KVM_IRQ_LINE, &line, "KVM_IRQ_LINE");
#else
    struct kvm_interrupt line = {high ? KVM_INTERRUPT_SET : KVM_INTERRUPT_UNSET};
    call(v->fd, KVM_INTERRUPT, &line, "KVM_INTERRUPT");
#endif
}

/* Has the thread go on on another CPU. */
static void change_cpu(unsigned n)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(n % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* Answers one exit of v. */
static void handle(struct vcpu *v)
{
    struct kvm_run *run = v->run;

    if (run->exit_reason != KVM_EXIT_MMIO)
        errx(1, "vCPU %d: exit reason %u", v->id, run->exit_reason);
    uint64_t offset = run->mmio.phys_addr - MMIO;
    if (offset == MMIO_WOKEN)
        set_line(v, false);
    v->done = offset == MMIO_DONE;
    v->accesses++;
    if (move && v->accesses % 8 == 0)
        change_cpu(v->accesses / 8 + (unsigned)v->id);
}

/* Runs v until it is done, or for one exit only. */
static void run(struct vcpu *v, bool once)
{
    do {
        if (ioctl(v->fd, KVM_RUN, 0) == 0)
            handle(v);
        else if (errno != EINTR)
            err(1, "KVM_RUN");
    } while (!v->done && !once);
}

static void *thread(void *arg)
{
    struct vcpu *v = arg;
    char name[16];

    snprintf(name, sizeof(name), "CPU %d/KVM", v->id);
    if (names)
        prctl(PR_SET_NAME, name);
    run(v, false);
    sem_post(&done);
    if (delay)
        pause();
    return NULL;
}

/* Runs all vCPUs from this one thread, an exit each in turn. */
static void run_in_turn(void)
{
    for (int left = nvcpus; left > 0;) {
        left = 0;
        for (int i = 0; i < nvcpus; i++) {
            if (!vcpus[i].done) {
                run(&vcpus[i], true);
                left++;
            }
        }
    }
}

/* Interrupts all vCPUs, every few milliseconds, for ever. */
static void *wake(void *arg)
{
    for (;;) {
        for (int i = 0; i < nvcpus; i++)
            set_line(&vcpus[i], true);
        usleep(4000);
    }
    return arg;
}

static void set_register(const struct vcpu *v, unsigned index, uint64_t value)
{
    struct kvm_one_reg r = {
        .id = REGISTER_ID + (uint64_t)index * REGISTER_SIZE, .addr = (uintptr_t)&value};

    call(v->fd, KVM_SET_ONE_REG, &r, "KVM_SET_ONE_REG");
}

/* Has the architecture's own made of v. */
static void prepare(const struct vcpu *v)
{
#ifdef __aarch64__
    struct kvm_vcpu_init init;
    call(vm, KVM_ARM_PREFERRED_TARGET, &init, "KVM_ARM_PREFERRED_TARGET");
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    call(v->fd, KVM_ARM_VCPU_INIT, &init, "KVM_ARM_VCPU_INIT");
#else
    struct kvm_mp_state runnable = {KVM_MP_STATE_RUNNABLE};
    call(v->fd, KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE");
#endif
}

/* Makes vCPU id, about to run the program. */
static void create_vcpu(int kvm, int id)
{
    struct vcpu *v = &vcpus[id];
    size_t size = (size_t)call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");

    v->id = id;
    v->fd = ioctl(vm, KVM_CREATE_VCPU, id);
    if (v->fd < 0)
        err(1, "KVM_CREATE_VCPU");
    v->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED)
        err(1, "mmap of vCPU %d", id);
    v->stats = call(v->fd, KVM_GET_STATS_FD, NULL, "KVM_GET_STATS_FD");
    prepare(v);
    for (unsigned i = 0; i < NWORKS; i++)
        set_register(v, WORK + i, works[i]);
    set_register(v, DEVICE, MMIO);
    set_register(v, MEMORY, RAM + TOUCH * ((uint64_t)id + 1));
    set_register(v, PC, RAM + CODE);
}

/* Makes the machine: memory, in which each page is mapped when it is touched, program, vCPUs. */
static void create(void)
{
    int kvm = open_kvm();

    vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
    char *ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED || madvise(ram, RAM_SIZE, MADV_NOHUGEPAGE) != 0)
        err(1, "the guest's memory");
    memcpy(ram + CODE, program, program_size);
    __builtin___clear_cache(ram + CODE, ram + CODE + program_size);
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = RAM, .memory_size = RAM_SIZE, .userspace_addr = (uintptr_t)ram};
    call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
    for (int i = 0; i < nvcpus; i++)
        create_vcpu(kvm, i);
}

/* Adds KVM's statistics of v to counts. */
static void read_stats(const struct vcpu *v, uint64_t counts[NCOLUMNS])
{
    for (size_t i = 0; i < sizeof(statistics) / sizeof(statistics[0]); i++)
        counts[statistics[i].column] += statistic(v->stats, statistics[i].name);
}

/* Prints the line of v. */
static void print_stats(const struct vcpu *v)
{
    uint64_t counts[NCOLUMNS] = {0};

    read_stats(v, counts);
    printf("%d\t%d", (int)getpid(), v->id);
    for (int i = 0; i < NCOLUMNS; i++)
        printf("\t%llu", (unsigned long long)(counts[i] - v->before[i]));
    printf("\t%llu\n", (unsigned long long)works[CALLS]);
}

static void usage(void)
{
    fputs("usage: risc-guest [-1MTd] [-v vcpus] [-h n] [-m n] [-r n] [-c n] [-t n] [-s n]\n"
          "  -h  halts, each of some ms    -m  MMIO writes    -r  MMIO reads\n"
          "  -c  calls of the hypervisor   -t  pages touched  -s  times to spin\n"
          "  -1  one thread runs all vCPUs          -M  change CPU now and then\n"
          "  -T  name the threads as QEMU does\n"
          "  -d  no halt ends, and nothing counts, before stdin has a line; and with the next\n"
          "      one, it ends\n",
        stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    bool one_thread = false;
    pthread_t started;
    int c;

    while ((c = getopt(argc, argv, "1MTdv:m:r:c:t:s:h:")) != -1) {
        const char *work = strchr(work_letters, c);
        switch (c) {
        case '1': one_thread = true; break;
        case 'M': move = true; break;
        case 'T': names = true; break;
        case 'd': delay = true; break;
        case 'v': nvcpus = atoi(optarg); break;
        default:
            if (work == NULL)
                usage();
            works[work - work_letters] = strtoull(optarg, NULL, 10);
        }
    }
    sem_init(&done, 0, 0);
    if (nvcpus < 1 || nvcpus > MAX_VCPUS || optind != argc)
        usage();
    create();
    for (int i = 0; i < nvcpus && !one_thread; i++) {
        if (pthread_create(&started, NULL, thread, &vcpus[i]) != 0)
            err(1, "pthread_create");
    }
    if (delay) {
        await_stdin();
        for (int i = 0; i < nvcpus; i++)
            read_stats(&vcpus[i], vcpus[i].before);
    }
    if (pthread_create(&started, NULL, wake, NULL) != 0)
        err(1, "pthread_create");
    if (one_thread)
        run_in_turn();
    for (int i = 0; i < nvcpus && !one_thread; i++)
        sem_wait(&done);
    for (int i = 0; i < nvcpus; i++)
        print_stats(&vcpus[i]);
    if (fflush(stdout) != 0)
        err(1, "stdout");
    if (delay)
        await_stdin();
    return 0;
}
