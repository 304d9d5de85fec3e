/*
 * monitor - a virtual machine monitor with the odd habits that some have
 *
 * Its vCPUs do what those of tests/guest -l oh do.  It says its process id on stderr when
 * the machine is made, and starts the vCPUs when stdin has a line.  What KVM itself
 * counted for each goes to stdout, in tests/guest's rows, once all have finished; it
 * stays until stdin ends.  x86 only.
 */

#define _GNU_SOURCE
#include "machine.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>

#define MAX_VCPUS 64
#define PORT_DONE 0x30    /* the loop is over */
#define MOVED_MACHINE 200 /* the least number of a machine's descriptor after dup */
#define MOVED_VCPU 300    /* and of a vCPU's */

struct vcpu {
    int fd;              /* the vCPU's descriptor */
    int id;              /* its number */
    struct kvm_run *run; /* its page shared with KVM */
    pthread_t thread;    /* that runs it */
    uint32_t halts;      /* how often it did HLT */
    atomic_bool done;    /* its loop is over */
};

struct machine {
    int fd;       /* its descriptor; -1 once it is closed */
    int made_as;  /* the descriptor's number when it was made */
    uint8_t *ram; /* the guest's memory */
    int nvcpus;   /* that are made */
    struct vcpu vcpus[MAX_VCPUS];
};

static const char *habits = "";
static int vcpus_wanted = 1;
static uint32_t loops = 300;     /* times through a vCPU's loop */
static unsigned pause_us = 1000; /* microseconds asleep at each HLT */
static int kvm;                  /* the descriptor of /dev/kvm */
static struct machine machines[2];
static int nmachines = 1;

static bool has(char habit)
{
    return strchr(habits, habit) != NULL;
}

/* Gives fd a number from least on. */
static int moved(int fd, int least)
{
    int other = fcntl(fd, F_DUPFD_CLOEXEC, least);

    if (other < 0)
        err(1, "fcntl");
    close(fd);
    return other;
}

static void add_vcpu(struct machine *m)
{
    struct vcpu *v = &m->vcpus[m->nvcpus];

    v->id = m->nvcpus++;
    v->halts = 0;
    v->done = false;
    v->fd = make_vcpu(kvm, m->fd, v->id, &v->run);
    if (has('v'))
        v->fd = moved(v->fd, MOVED_VCPU);
}

/* Makes m, with one vCPU if the others are to come while it runs. */
static void make(struct machine *m)
{
    static const uint8_t to_loop[] = {0x66, 0xb9}; /* mov ecx, loops */
    static const uint8_t loop[] = {
        0xe6, 0x10,                         /* out 0x10, al */
        0xf4,                               /* hlt */
        0x66, 0x49, 0x0f, 0x85, 0xf7, 0xff, /* dec ecx; jnz to the out */
        0xe6, PORT_DONE, 0xf4               /* out PORT_DONE, al; hlt */
    };

    m->fd = m->made_as = make_machine(kvm, &m->ram);
    memcpy(m->ram + CODE, to_loop, sizeof(to_loop));
    memcpy(m->ram + CODE + 2, &loops, 4);
    memcpy(m->ram + CODE + 6, loop, sizeof(loop));
    m->nvcpus = 0;
    if (has('d'))
        m->fd = moved(m->fd, MOVED_MACHINE);
    while (m->nvcpus < (has('h') ? 1 : vcpus_wanted))
        add_vcpu(m);
    if (has('c')) {
        close(m->fd); /* the vCPUs keep the machine */
        m->fd = -1;
    }
}

static void *make_all(void *arg)
{
    kvm = open_kvm();
    for (int i = 0; i < nmachines; i++)
        make(&machines[i]);
    return arg;
}

static void destroy(struct machine *m)
{
    for (int i = 0; i < m->nvcpus; i++) {
        munmap(m->vcpus[i].run, run_size(kvm));
        close(m->vcpus[i].fd);
    }
    close(m->fd);
    munmap(m->ram, RAM_SIZE);
}

static void begin(pthread_t *thread, void *(*function)(void *), void *arg)
{
    if (pthread_create(thread, NULL, function, arg) != 0)
        err(1, "pthread_create");
}

static void *run(void *arg);

/* Has another thread run v, while this one computes for ever. */
static _Noreturn void pass_on(struct vcpu *v)
{
    pthread_t thread;

    begin(&thread, run, v);
    while (true)
        atomic_signal_fence(memory_order_seq_cst);
}

/* The thread of a vCPU. */
static void *run(void *arg)
{
    struct vcpu *v = arg;

    if (has('r')) {
        char name[32];
        snprintf(name, sizeof(name), "worker %d", v->id);
        pthread_setname_np(pthread_self(), name);
    }
    while (!v->done) {
        if (ioctl(v->fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR)
                err(1, "KVM_RUN");
        } else if (v->run->exit_reason == KVM_EXIT_HLT) {
            usleep(pause_us);
            if (++v->halts == loops / 2 && has('p'))
                pass_on(v);
        } else {
            v->done = v->run->exit_reason == KVM_EXIT_IO && v->run->io.port == PORT_DONE;
        }
    }
    return NULL;
}

/* Runs all vCPUs of m, or with l but the first one; with h, one more each tenth of a second. */
static void run_machine(struct machine *m)
{
    for (int i = 0; i < vcpus_wanted; i++) {
        if (i == m->nvcpus) {
            usleep(100000);
            add_vcpu(m);
        }
        if (i == 0 && has('l'))
            continue;
        begin(&m->vcpus[i].thread, run, &m->vcpus[i]);
    }
}

static void finish_machine(struct machine *m)
{
    for (int i = 0; i < m->nvcpus; i++) {
        if (has('l')) { /* the second one's end is the process's */
            pthread_join(m->vcpus[1].thread, NULL);
            _exit(0);
        }
        if (has('p')) /* its first thread never ends */
            while (!m->vcpus[i].done)
                usleep(1000);
        else
            pthread_join(m->vcpus[i].thread, NULL);
        print_stats(m->vcpus[i].fd, m->vcpus[i].id);
    }
}

static void run_all(void)
{
    for (int i = 0; i < nmachines; i++)
        run_machine(&machines[i]);
    for (int i = 0; i < nmachines; i++)
        finish_machine(&machines[i]);
}

/* Has children that keep all descriptors for a while, for ever. */
static void *fork_children(void *arg)
{
    for (;;) {
        pid_t child = fork();
        if (child == 0) {
            usleep(20000);
            _exit(0);
        }
        usleep(5000);
        waitpid(child, NULL, 0);
    }
    return arg;
}

static void *work(void *arg)
{
    sleep(2);
    return arg;
}

/* Has threads that come and go, for ever. */
static void *begin_workers(void *arg)
{
    for (;;) {
        pthread_t thread;
        begin(&thread, work, NULL);
        pthread_detach(thread);
        usleep(20000);
    }
    return arg;
}

/* Puts a machine in the place of the first one: one with the same descriptor. */
static void make_again(void)
{
    int fd = machines[0].made_as;

    destroy(&machines[0]);
    make(&machines[0]);
    if (machines[0].made_as != fd)
        errx(1, "the second machine's descriptor is not the first one's");
}

/* All that the process does, in its main thread or, with o or x, in another one. */
static void *do_all(void *arg)
{
    pthread_t thread;

    if (has('o') && unshare(CLONE_FILES) < 0)
        err(1, "unshare");
    if (has('t')) {
        begin(&thread, make_all, NULL);
        pthread_join(thread, NULL);
    } else {
        make_all(NULL);
    }
    if (has('u') && setuid(65534) < 0)
        err(1, "setuid");
    if (has('f'))
        begin(&thread, fork_children, NULL);
    if (has('w'))
        begin(&thread, begin_workers, NULL);
    fprintf(stderr, "monitor %d\n", (int)getpid()); /* ready */
    await_stdin();
    run_all();
    if (has('a')) {
        make_again();
        run_all();
    }
    if (fflush(stdout) != 0)
        err(1, "stdout");
    await_stdin();
    exit(0);
    return arg;
}

static void usage(void)
{
    fputs("usage: monitor [-v vcpus] [-n loops] [-s usec] [habits]\n"
          "  a  makes another machine when the first one is done, with its descriptor\n"
          "  c  closes the machine's descriptor, and keeps the vCPUs'\n"
          "  d  moves the machine's descriptor to another number\n"
          "  f  forks children now and then, which hold its descriptors\n"
          "  h  adds vCPUs while others run\n"
          "  l  never runs its first vCPU, and ends at once when its second one is done\n"
          "  o  has a thread with a descriptor table of its own do all\n"
          "  p  has another thread run each vCPU from half of the loop on, while the\n"
          "     first one computes\n"
          "  r  names the vCPUs' threads otherwise\n"
          "  t  has the machine and vCPUs made by a thread that ends\n"
          "  u  is another user once the machine is made\n"
          "  v  moves the vCPUs' descriptors to other numbers\n"
          "  w  has other threads that come and go\n"
          "  x  ends the main thread\n"
          "  2  has two machines\n",
        stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int c;

    while ((c = getopt(argc, argv, "v:n:s:")) != -1) {
        switch (c) {
        case 'v': vcpus_wanted = atoi(optarg); break;
        case 'n': loops = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 's': pause_us = (unsigned)strtoul(optarg, NULL, 10); break;
        default: usage();
        }
    }
    if (optind < argc)
        habits = argv[optind++];
    if (optind < argc || vcpus_wanted < 1 || vcpus_wanted > MAX_VCPUS ||
        habits[strspn(habits, "acdfhloprtuvwx2")] != '\0')
        usage();
    if (has('2'))
        nmachines = 2;
    if (!has('o') && !has('x'))
        do_all(NULL);
    begin(&thread, do_all, NULL);
    if (has('x'))
        pthread_exit(NULL);
    pthread_join(thread, NULL);
}
