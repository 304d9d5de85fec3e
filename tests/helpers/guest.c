/*
 * guest - a tiny virtual machine monitor whose guest makes known exits
 *
 * The guest is a loop of one instruction a letter, written in real mode, one
 * copy a vCPU.  What KVM itself counted for each vCPU (KVM_GET_STATS_FD) goes
 * to stdout, a row a vCPU, once all have finished: the judge of what kvmstat
 * shows.  Before Linux 5.14 KVM does not tell that: then a row has only the
 * process and the vCPU, and one more row, of the vCPU "all", has the sums over
 * the vCPUs, which are in debugfs.  x86 only.
 */

#define _GNU_SOURCE
#include "machine.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#define MAX_VCPUS 1024
#define HANDLER 0x800u      /* the interrupt handler's (an IRET) */
#define MMIO 0xd0000u       /* an address with no memory behind it */
#define TOUCH 0x20000u      /* memory for letter t, a page a loop */
#define VECTOR 0x40         /* of the interrupt that letter q asks for */
#define PORT_PLAIN 0x10     /* letters o, i */
#define PORT_INTERRUPT 0x20 /* letter q: inject one when the guest can take it */
#define PORT_DONE 0x30      /* the loop is over */

struct vcpu {
    int fd;              /* the vCPU's descriptor */
    int id;              /* its number */
    struct kvm_run *run; /* its page shared with KVM */
    bool done;           /* it has written to PORT_DONE */
    int cpu;             /* the host CPU it was last moved to */
    pthread_t thread;    /* that runs it */
};

static struct vcpu vcpus[MAX_VCPUS];
static int nvcpus = 1;
static int machine;                 /* its descriptor */
static const char *letters = "omh"; /* the loop's instructions */
static uint32_t loops = 500;        /* times through the loop; 0 is for ever */
static unsigned pause_us;           /* microseconds asleep at each HLT */
static bool move;                   /* move to another CPU at each HLT */
static bool irqchip;                /* KVM's own interrupt controller */
static bool unplug;                 /* the last vCPU's thread ends after an exit */
static int ncpus;                   /* host CPUs to move among */

/*
 * Writes the loop at p; gives its length.  ECX counts down; with loops 0 it
 * jumps back always.
 */
static size_t assemble(uint8_t *p)
{
    uint8_t *start = p, *top;

    if (strchr(letters, 'q') != NULL)
        *p++ = 0xfb;          /* sti */
    memcpy(p, "\x66\xb9", 2); /* mov ecx, loops */
    memcpy(p + 2, &loops, 4);
    p += 6;
    memcpy(p, "\xb8\x00\xd0\x8e\xd8", 5); /* mov ax, 0xd000; mov ds, ax */
    p += 5;
    top = p;
    for (const char *l = letters; *l != '\0'; l++) {
        static const struct {
            char letter;      /* as in -l */
            uint8_t size;     /* of the code */
            uint8_t code[16]; /* the instruction */
        } code[] = {
            {'o', 2, {0xe6, PORT_PLAIN}},     /* out */
            {'i', 2, {0xe4, PORT_PLAIN}},     /* in */
            {'q', 2, {0xe6, PORT_INTERRUPT}}, /* out */
            {'m', 3, {0xa2, 0x00, 0x00}},     /* mov [0], al */
            {'r', 3, {0xa0, 0x00, 0x00}},     /* mov al, [0] */
            {'w', 3, {0xa3, 0xff, 0x0f}},     /* mov [0xfff], ax: two pages */
            {'h', 1, {0xf4}},                 /* hlt */
            {'n', 1, {0x90}},                 /* nop */
            {'s', 2, {0xeb, 0xfe}},           /* jmp to itself, for ever */
            {'x', 3, {0xfa, 0xeb, 0xfe}},     /* the same, interrupts off */
            /* EDI keeps ECX, for all vCPUs have the same stack. */
            /* mov edi, ecx; mov eax, 7; cpuid; mov ecx, edi */
            {'c', 14, {0x66, 0x89, 0xcf, 0x66, 0xb8, 7, 0, 0, 0, 0x0f, 0xa2, 0x66, 0x89, 0xf9}},
            /* mov edi, ecx; mov ecx, 0x1b; rdmsr; mov ecx, edi */
            {'g', 14, {0x66, 0x89, 0xcf, 0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32, 0x66, 0x89, 0xf9}},
            /* mov edi, ecx; mov ecx, 0x6e0; wrmsr; mov ecx, edi */
            {'p', 14, {0x66, 0x89, 0xcf, 0x66, 0xb9, 0xe0, 6, 0, 0, 0x0f, 0x30, 0x66, 0x89, 0xf9}},
            /* mov eax, 11; vmmcall */
            {'v', 9, {0x66, 0xb8, 11, 0, 0, 0, 0x0f, 0x01, 0xd9}},
        };
        size_t i = 0;
        while (code[i].letter != *l) {
            if (++i == sizeof(code) / sizeof(code[0]))
                errx(2, "-l %s: no instruction has the letter %c", letters, *l);
        }
        memcpy(p, code[i].code, code[i].size);
        p += code[i].size;
    }
    if (loops != 0) {
        memcpy(p, "\x66\x49\x0f\x85", 4); /* dec ecx; jnz top */
        p += 4;
    } else {
        *p++ = 0xe9; /* jmp top */
    }
    int16_t back = (int16_t)(top - (p + 2));
    memcpy(p, &back, 2);
    p += 2;
    memcpy(p, "\xe6\x30\xf4", 3); /* out PORT_DONE; hlt */
    return (size_t)(p + 3 - start);
}

/* Answers one exit of v. */
static void handle(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    struct kvm_interrupt interrupt = {VECTOR};

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        if (run->io.port == PORT_INTERRUPT)
            run->request_interrupt_window = 1;
        v->done = run->io.port == PORT_DONE;
        break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        run->request_interrupt_window = 0;
        if (ioctl(v->fd, KVM_INTERRUPT, &interrupt) < 0)
            err(1, "KVM_INTERRUPT");
        break;
    case KVM_EXIT_HLT:
        if (pause_us != 0)
            usleep(pause_us);
        if (move) {
            cpu_set_t set;
            v->cpu = (v->cpu + 1) % ncpus;
            CPU_ZERO(&set);
            CPU_SET((size_t)v->cpu, &set);
            sched_setaffinity(0, sizeof(set), &set);
        }
        break;
    case KVM_EXIT_MMIO: break;
    default: errx(1, "vCPU %d: exit reason %u", v->id, run->exit_reason);
    }
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

    run(v, unplug && v->id == nvcpus - 1);
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

/* Makes vCPU id, about to run the program. */
static void create_vcpu(int kvm, int id)
{
    struct vcpu *v = &vcpus[id];

    v->id = id;
    v->cpu = id;
    v->fd = make_vcpu(kvm, machine, id, &v->run);
    if (irqchip) {
        struct kvm_mp_state runnable = {KVM_MP_STATE_RUNNABLE};
        if (ioctl(v->fd, KVM_SET_MP_STATE, &runnable) < 0)
            err(1, "KVM_SET_MP_STATE");
    }
}

/* Makes the machine: memory, program, vCPUs. */
static void create(void)
{
    int kvm = open_kvm();
    uint8_t *ram;

    machine = make_machine(kvm, &ram);
    assemble(ram + CODE);
    ram[HANDLER] = 0xcf; /* iret */
    uint16_t handler = HANDLER;
    memcpy(ram + VECTOR * 4, &handler, 2);
    if (irqchip && ioctl(machine, KVM_CREATE_IRQCHIP, 0) < 0)
        err(1, "KVM_CREATE_IRQCHIP");
    for (int i = 0; i < nvcpus; i++)
        create_vcpu(kvm, i);
}

/* Prints the sums that debugfs has.  It is mounted in a mount name space of this thread's own,
   so that nobody else finds it. */
static void print_sums(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("nodev", "/mnt", "debugfs", 0, NULL) < 0)
        err(1, "debugfs");
    for (int i = 0; i < nvcpus; i++)
        printf("%d\t%d\n", (int)getpid(), i);
    printf("%d\tall", (int)getpid());
    for (size_t w = 0; w < NWANTED; w++) {
        char path[128];
        unsigned long long value;
        const char *name = strcmp(wanted[w], "irq_window_exits") == 0 ? "irq_window" : wanted[w];
        snprintf(path, sizeof(path), "/mnt/kvm/%d-%d/%s", (int)getpid(), machine, name);
        FILE *file = fopen(path, "r");
        if (file == NULL || fscanf(file, "%llu", &value) != 1)
            err(1, "%s", path);
        fclose(file);
        printf("\t%llu", value);
    }
    printf("\n");
}

/* Prints what KVM counted. */
static void print_counts(void)
{
    if (ioctl(machine, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) <= 0) {
        print_sums();
        return;
    }
    for (int i = 0; i < nvcpus; i++)
        print_stats(vcpus[i].fd, i);
}

static void usage(void)
{
    fputs("usage: guest [-1IMPTdeuw] [-v vcpus] [-n loops] [-l letters] [-s usec] [-N name ...]\n"
          "  -l  the loop: o out, i in, m MMIO write, r MMIO read, w MMIO write across\n"
          "      a page, h hlt, c cpuid, g MSR read, p MSR write, v hypercall (AMD's),\n"
          "      q take an interrupt, n nop, s spin, x spin with interrupts off\n"
          "  -n  times through it (0: for ever)      -s  sleep at each HLT\n"
          "  -1  one thread runs all vCPUs           -M  change CPU at each HLT\n"
          "  -P  never run them                      -I  KVM's interrupt controller\n"
          "  -T  name the threads as QEMU does       -d  start when stdin has a line\n"
          "  -e  when done, execute a paused guest that is called second\n"
          "  -u  the last vCPU's thread ends after an exit, as if it was unplugged\n"
          "  -w  when done, stay until stdin ends    -N  ignored, with all that follows\n",
        stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    bool one_thread = false, paused = false, names = false, delay = false, linger = false,
         again = false;
    int c;

    while ((c = getopt(argc, argv, "+1IMPTdeuwv:n:l:s:N")) != -1 && c != 'N') {
        switch (c) {
        case '1': one_thread = true; break;
        case 'I': irqchip = true; break;
        case 'M': move = true; break;
        case 'P': paused = true; break;
        case 'T': names = true; break;
        case 'd': delay = true; break;
        case 'e': again = true; break;
        case 'u': unplug = true; break;
        case 'w': linger = true; break;
        case 'v': nvcpus = atoi(optarg); break;
        case 'n': loops = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'l': letters = optarg; break;
        case 's': pause_us = (unsigned)strtoul(optarg, NULL, 10); break;
        default: usage();
        }
    }
    if (nvcpus < 1 || nvcpus > MAX_VCPUS || (c != 'N' && optind != argc))
        usage();
    ncpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    create();
    fprintf(stderr, "guest %d\n", (int)getpid()); /* ready */
    if (delay)
        await_stdin();
    if (paused) {
        await_stdin();
    } else if (one_thread) {
        run_in_turn();
    } else {
        for (int i = 0; i < nvcpus; i++) {
            if (pthread_create(&vcpus[i].thread, NULL, thread, &vcpus[i]) != 0)
                err(1, "pthread_create");
            if (names) {
                char name[32];
                snprintf(name, sizeof(name), "CPU %d/KVM", i);
                pthread_setname_np(vcpus[i].thread, name);
            }
        }
        for (int i = 0; i < nvcpus; i++)
            pthread_join(vcpus[i].thread, NULL);
    }
    print_counts();
    if (fflush(stdout) != 0)
        err(1, "stdout");
    if (again)
        execl(argv[0], argv[0], "-P", "-N", "-name", "second", NULL);
    if (linger)
        await_stdin();
    return 0;
}
