/*
 * kvmstat - vmstat for virtual machines
 *
 * Shows, every interval, what each virtual CPU of a KVM host did: its exits and
 * their reasons, the interrupts injected, the instructions emulated.  It enables
 * the kernel's kvm trace events in a tracefs instance of its own, reads each
 * CPU's raw buffer, puts the events in the order of their time stamps and counts
 * them by process and vCPU.  It can save what it read in trace-cmd's format, to
 * report it later, on another host, and give its counters to Performance Co-Pilot.
 * kvmstat(1) is the contract.
 *
 * Copyright (c) 2026 The kvmstat authors
 *
 * Permission to use, copy, modify, and/or distribute this software for any
 * purpose with or without fee is hereby granted, provided that the above
 * copyright notice and this permission notice appear in all copies.
 *
 * THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH
 * REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY
 * AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
 * INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM
 * LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR
 * OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR
 * PERFORMANCE OF THIS SOFTWARE.
 */

/*
 * The parts, each of which uses those above it (and what is declared behind the model):
 *
 *   The model          whose counts: struct tally, vcpu, guest, thread; what is read: stream
 *   Helpers            errors, memory, text, files, rights
 *   Formats            from what the kernel says of its events to offsets, and reasons' names
 *   Sub-buffers        from bytes to events
 *   Tallies, Guests    what the model's things do
 *   Counting           reasons and their columns; keys (-e), and tables[] of them
 *   The events         events[]: which hosts and tables use one, and what counts it
 *   Merging            the events of all CPUs in the order of their stamps
 *   This host          the observer, which alone looks at others' processes (a question: enum
 *                      inquiry, and answer()); the tracefs instance, who interferes, processes,
 *                      names, guests, shares of the CPUs (-c): this_host
 *   A recording        of -r, and what it tells of guests: recorded_host
 *   The table          columns, rows, and what is said on stderr; then -w, metrics (-m), starting
 *                      and ending, waiting, options, reports and main()
 *
 * An event: fill() takes it from what source->read_pages() read of a CPU.  drain() finds the CPU
 * with the earliest one, and count_turn() counts that.  count() finds its type and thread, and
 * calls what events[] has for the table: count_exit() adds to the thread's tally, which is its
 * vCPU's or, while that is not known, pending until move_tally().  set_line() makes the cells of a
 * vCPU's tally.
 *
 * A vCPU: in the observer, tell_table() sees its file descriptor; read_guest() asks for that, and
 * settle_owners() finds whose it is (of a recording: take_guest()).  Or an event tells of it, to
 * note_vcpu().  vcpu_of() makes it.  Its thread is told by such events (on arm64, to note_load()),
 * or found by find_all_vcpus(), which gives the vCPU UNKNOWN_VCPU, the row `?', what it finds no
 * other one for; so does end_thread().  has_row() says whether it has a row; the comment before
 * host_sums, how rows are chosen and sorted.  save_guest() writes its GUEST option, and
 * describe_instance() its metrics.
 *
 * To add a column: enum counter, counter_columns[], all_metrics[] (with a number above all there),
 * and where it is counted: a table of reasons from vmx_reasons[] on, or .counter in events[].  One
 * of -c: enum share in place of enum counter, and read_times().  Counters stand before run%, wait%
 * and state, so a new one changes these fields' numbers, which the manual promises not to do.
 *
 * A table of -e: enum table, tables[] with a function beside name_port(), a key_ function beside
 * key_pio(), and its uses in events[], of KVM_ENTRY, too; then print_usage(), print_help() and
 * parse_table().  A new event: enum event and events[] (on ALL_HOSTS, for a recording without
 * kvm_exit's format is an OTHER_HOST).  A new field: enum field_name and field_names[].
 *
 * An architecture: its field, a table of reasons, and a case in exit_counter().  If print fmt has
 * no names of reasons by that field (SYMBOL; see parse_format() and parse_symbols()), a case in
 * exit_key() and check_reasons(), too, and names as riscv64_causes[].  If events[] must tell it
 * from an OTHER_HOST: enum host_kind with HARDWARE_HOSTS, choose_events(), and events[]' masks.
 * Where a halt is an event of its own, beside kvm_exit (LoongArch), that is a new event, whose
 * function does what count_exit() does, with HALTX.
 */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64 /* a recording can have more than 2 GiB, on 32-bit systems too */
#define _TIME_BITS 64        /* a recording can be made after 2038, on 32-bit systems too */
#include <ctype.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VERSION "1.4"

#define NSEC 1000000000u        /* nanoseconds in a second */
#define DEFAULT_KIB 2048        /* -b: default KiB of each per-CPU buffer */
#define BIRTHS (1u << 16)       /* slots for the births of threads and processes */
#define MAX_COMMANDS (1u << 20) /* bytes of threads' names that -w records */
#define MAX_NAME 1023           /* bytes of a guest's name that are kept */
#define UNKNOWN_VCPU LONG_MAX   /* a vCPU's number when nothing tells it: the row `?' */
#define NO_THREAD (-1)          /* a vCPU's thread if none has run it yet */
#define OTHER_KEYS UINT64_MAX   /* -e: id of a key that sums up those beyond a limit: key_of() */
#define UNKNOWN_KEY (OTHER_KEYS - 1) /* -e: an exit's, until an event tells what it was for */

/*
 * The model: whose events are counted, what is counted, and what an event is.  The variables that
 * hold the state are at the end of this part.  Times without another unit are nanoseconds of the
 * trace clock.
 */

/* A string that grows, see put_bytes(). */
struct text {
    char *s;      /* its bytes, with no NUL after them */
    size_t size;  /* number of bytes */
    size_t space; /* number of bytes that fit */
};

/* What is counted, in the order of the columns. */
enum counter { EXITS, HALTX, IRQX, IRQWX, IOX, MMIOX, IRQS, EMUL, EPTV, NCOUNTERS };

/* What a vCPU's thread did with the CPUs (-c), in the order of the columns. */
enum share { RUN, WAIT, NSHARES };

/* The tables that can be reported: the usual one, and those of -e. */
enum table { USUAL, VMEXIT, MMIO, IOPORT, MSR, CPUID, HYPERCALL, NTABLES };

/* What a row of -e is for: an exit reason, an address with the direction of access, or the like. */
struct key {
    uint64_t id;    /* the reason, address or the like; its table's name_key() decodes it */
    uint64_t count; /* occurrences since the last report */
    uint64_t timed; /* number of durations measured since the last report */
    uint64_t total; /* sum of these durations, in nanoseconds */
    uint64_t min;   /* the shortest of them, in nanoseconds */
    uint64_t max;   /* the longest of them, in nanoseconds */
};

/* The counts of a vCPU, or of a thread whose vCPU is not known yet. */
struct tally {
    uint64_t counts[NCOUNTERS]; /* since the last report */
    struct key *keys;           /* -e: those of the interval, in order of id */
    size_t nkeys;               /* number of keys */
    uint64_t open;              /* id of the key whose end is awaited, unless since is 0 */
    uint64_t since;             /* stamp of that key's begin; 0: no end is awaited */
    uint64_t shares[NSHARES];   /* -c: of the time, in hundredths of a per cent */
    bool shareless;             /* -c: these are not known */
};

/* A virtual CPU: a row of the report. */
struct vcpu {
    long id;                    /* its number, or UNKNOWN_VCPU */
    int tid;                    /* the thread that ran it last; NO_THREAD; 0: not known */
    bool ended;                 /* -c: that thread has ended, and none ran it since */
    const char *untold;         /* why there is this row `?', as explain_rows() says it; "": it has;
                                   NULL: it is another one */
    bool present;               /* its guest has it now; -r: had it in the interval */
    bool recent;                /* it was present at some time since the last report */
    int instance;               /* -m: its instance id in PCP; 0: none yet */
    bool found;                 /* show_vcpus(): its process has a descriptor of it */
    uint64_t first;             /* end of the first interval that found it present (or the start of
                                   tracing); 0: none yet; -r: 0: not recorded; UINT64_MAX: none */
    uint64_t last;              /* the same of the last interval; -r: UINT64_MAX: not recorded */
    struct tally tally;         /* its counts since the last report */
    uint64_t totals[NCOUNTERS]; /* -m: its counts since it was first seen */
    uint64_t read_at;           /* -c: when that thread's times were read last; 0: not yet */
    uint64_t times[NSHARES];    /* -c: these times then, in nanoseconds */
    uint64_t used;              /* -c: the CPU time of its process just before; 0: not known */
    uint64_t shares[NSHARES];   /* -c: what they told, as in a tally ... */
    bool shareless;             /* -c: ... or that they told nothing */
    uint64_t spent[NSHARES];    /* -c, -m: the nanoseconds since its thread was first known */
};

/* How far the reading of processes' descriptors has come: see tell_process(). */
struct place {
    int pid;    /* the process; -1: behind the last one, in a search of all */
    int thread; /* its place in the list of threads; 0: its first thread; -1: there is no more */
    int fd;     /* the descriptor to go on with */
    int last;   /* the thread whose descriptors were read last; 0: none */
};

/* A process that has virtual machines, had some when it was last looked at, or is named by -p. */
struct guest {
    int pid;             /* the process id (not a thread id) */
    uint64_t started;    /* when the process started, in clock ticks since boot; 0: not known */
    char *name;          /* the guest's name, unescaped: with -m, -n, -w or a name for -p, or if a
                            recording tells it; else NULL */
    uint64_t ask_at;     /* when to ask for the name again, by CLOCK_MONOTONIC; 0: never */
    struct vcpu **vcpus; /* its vCPUs, in order of their numbers */
    size_t nvcpus;       /* number of vcpus */
    bool asked;          /* -p asks for it, or there is no -p */
    bool former;         /* its pid is the id of another process or thread by now */
    bool reused;         /* -m: its pid was that of another guest before */
    uint64_t gone;       /* when the process was found to have ended; 0: it was not */
    bool has_threads;    /* a struct thread still points here */
    bool forgotten;      /* forget_guests() is about to free it */
    bool looked_for;     /* a search is for the vCPU of one of its threads */
    bool stale;          /* its vCPUs may have changed since its descriptors were read */
    uint64_t read_at;    /* when all its descriptors began to be read last; 0: never yet */
    uint64_t unsettled_until; /* its descriptors are read again until then: a VM was just made */
    struct descriptor *files; /* what its descriptors were when last read as a whole */
    size_t nfiles;            /* number of files */
    struct descriptor *read;  /* those that were read anew up to now ... */
    size_t nread;             /* ... their number ... */
    struct place at;          /* ... where that goes on ... */
    uint64_t begun;           /* ... and when it began */
    uint64_t looked;          /* when that was last done or given up; 0: never */
    int twin;                 /* a process with the same table of descriptors, which are noted
                                 there; 0: none */
    struct vm *vms;           /* settle_owners(): first of the VMs that it runs or made ... */
    bool ran;                 /* ... one of its threads ran a vCPU ... */
    struct guest *shower;     /* ... whose rows show its files' vCPUs: itself or a twin */
    size_t nmachines;         /* number of its virtual machines */
    size_t ndirectories;      /* number of its virtual machines' directories in debugfs */
    bool nameless; /* its vCPUs' descriptors do not tell their numbers (before Linux 4.18) */
    struct text ended_threads; /* -w: entries of its ended threads, as in a GUEST option ... */
    struct text all_threads;   /* ... and, while put_guests() runs, of all */
};

/* How a thread's last exit is counted. */
enum last_exit {
    SETTLED, /* it is counted in its column, or has none */
    FAULT,   /* it counts in mmiox if a kvm_mmio follows, else in eptv */
    OTHER    /* it counts in mmiox if a kvm_mmio follows, else in no column */
};

/* How it is known which vCPU a thread runs. */
enum knowledge {
    UNTOLD, /* not by its events: vcpu is what a search found; NULL: none yet, or in vain */
    TOLD,   /* by its events, which carry the vCPU's number */
    MIXED   /* not at all: it ran more than one, or its recording says that nothing told */
};

/* A thread that runs vCPUs, by the common_pid of its events. */
struct thread {
    int tid;             /* thread id; 0: about to be freed */
    uint64_t gone;       /* when it was found to have ended; 0: it was not */
    struct guest *guest; /* its process; NULL: a new thread has the id, but had no event yet */
    struct vcpu *vcpu;   /* the vCPU that it ran last; NULL while that is not known, and if MIXED */
    struct tally *tally; /* where its events count: the vCPU's tally, or pending */
    struct tally pending; /* counts that were not given to a vCPU yet */
    enum knowledge known; /* how vcpu is known */
    long ran_last;        /* debugfs: the vCPU that it ran last; -1: none; UNKNOWN_VCPU: several */
    bool is_new;          /* no search for its vCPU has been made yet */
    bool sought;          /* the search that was begun last is for its vCPU */
    bool active;          /* since the last report, it had an event or an exit was settled */
    bool ran;             /* it has run a vCPU, and not only made one */
    uint64_t since;       /* stamp of its first event, as it ran one */
    long loaded;          /* arm64: the vCPU that it loaded last, or made; plus 1, for 0 is none */
    enum last_exit last_exit;   /* how its last exit is counted */
    bool in_mmio;               /* its MMIO access may go on without an exit: is_user_exit() */
    uint64_t exit_time;         /* stamp of its last kvm_exit */
    struct stream *exit_stream; /* stream in which its last kvm_exit was read */
};

/* Which process a thread belongs to, as its start or procfs told. */
struct birth {
    int tid;       /* thread id; 0: the slot is empty */
    int pid;       /* its process id; 0: not known */
    bool is_fresh; /* -c: no times of it were read since */
};

/* Fields of trace events that are read; field_names[] has their names. */
enum field_name {
    COMMON_PID,
    VCPU_ID,
    EXIT_REASON,
    ISA,
    INFO1,
    RET,
    ESR_EC,
    SCAUSE,
    STVAL,
    REASON,
    ERRNO,
    PID,
    LOAD,
    TYPE,
    GPA,
    RW,
    PORT,
    ECX,
    WRITE,
    FUNCTION,
    NR,
    CLONE_FLAGS,
    SYMBOL, /* the field, of any name, that print fmt's first table of names is for */
    NFIELDS
};

/* Where a value is in an event, or in a sub-buffer's header. */
struct field {
    size_t offset; /* bytes from the start */
    size_t size;   /* bytes: 1, 2, 4 or 8; 0: there is no such field */
};

/* The layout of a sub-buffer, as events/header_page describes it. */
struct page_layout {
    struct field time;   /* the time stamp that the first event's delta adds to */
    struct field commit; /* the length of the data, and the COMMIT flags */
    size_t data;         /* offset of the first event */
    size_t size;         /* bytes of the whole sub-buffer */
};

/* A place in a sub-buffer. */
struct subbuf {
    const uint8_t *data; /* the events */
    size_t size;         /* bytes of the events */
    size_t at;           /* offset of the next event in data */
    uint64_t time;       /* stamp of the last event taken; before, the header's */
    bool missed;         /* events were lost before the next event ... */
    uint64_t lost;       /* ... as many as that just before this sub-buffer; 0: not told */
};

/* An event. */
struct record {
    uint64_t time;                 /* its stamp, in the trace clock's nanoseconds */
    const uint8_t *data;           /* its fields, common_type first */
    size_t size;                   /* bytes of the fields */
    const struct event_type *type; /* its type; NULL: not looked up yet, or not wanted */
};

/* Sub-buffers of a CPU that follow one another in a recording. */
struct run {
    uint64_t at;   /* offset in the file */
    uint64_t size; /* bytes */
};

/* A per-CPU buffer, or a CPU's sub-buffers in a recording, and the next event of these. */
struct stream {
    int cpu;               /* the CPU's number */
    int fd;                /* file descriptor of trace_pipe_raw, or of the recording */
    struct run *runs;      /* -r: where its sub-buffers are in fd, in order */
    size_t nruns;          /* number of runs */
    size_t run;            /* index of the run that is read next */
    uint64_t at;           /* -r: offset in fd of the bytes of a run that were not read yet ... */
    uint64_t left;         /* ... and their number */
    bool ready;            /* poll_streams() saw something to read; -r: always true */
    uint8_t *pages;        /* what was read last; NULL before the first read */
    size_t nbytes;         /* number of bytes read to pages, whole sub-buffers */
    size_t used;           /* number of these up to the end of the open sub-buffer */
    struct subbuf subbuf;  /* the place in the open sub-buffer */
    struct record next;    /* the next event, if has_next */
    bool has_next;         /* there is a next event */
    uint64_t overrun;      /* events lost up to now, as per_cpu/cpuN/stats counts them */
    uint64_t lost;         /* events lost since the last report ... */
    bool lost_more;        /* ... and further ones, whose number nothing told */
    struct text unsaved;   /* -w: sub-buffers that were read, but not written yet */
    bool marked;           /* -w: the next saved sub-buffer says that events are missing */
    uint64_t gap;          /* stamp of the first event after the last loss; 0: no loss yet */
    struct thread *thread; /* thread of the last event, most often the next one's too; or NULL */
};

/* Kinds of hosts, as bits, by the events that tell of exits there. */
enum host_kind {
    SOFTWARE_HOST = 1, /* only the software backend, kvm_pvm: kvm_userspace_exit, and no kvm_exit */
    X86_HOST = 2,      /* Intel's and AMD's kvm_exit */
    ARM64_HOST = 4,    /* arm64's kvm_exit */
    RISCV64_HOST = 8,  /* RISC-V's kvm_exit */
    OTHER_HOST = 16,   /* another kvm_exit */
    USER_HOSTS = SOFTWARE_HOST | RISCV64_HOST, /* kvm_userspace_exit tells what others do not */
    HARDWARE_HOSTS = X86_HOST | ARM64_HOST | RISCV64_HOST | OTHER_HOST,
    ALL_HOSTS = SOFTWARE_HOST | HARDWARE_HOSTS
};

/* How a table uses a trace event.  Hosts are enum host_kind. */
struct use {
    unsigned hosts;  /* those where the table uses the event, if they have it */
    unsigned needed; /* those where the table is refused if they do not have the event.  Those that
                        are not among hosts never fire it: there the table is refused anyway */
    void (*count)(struct thread *t, struct stream *s); /* counts s->next, an event of thread t;
                                              NULL: it only tells which vCPU t runs */
};

/* A trace event that kvmstat can use. */
struct event_type {
    const char *name;             /* its path under events/ */
    enum counter counter;         /* the column in which count_event() counts it */
    struct use uses[NTABLES];     /* by enum table */
    int id;                       /* its common_type; 0: there is no such event */
    bool wanted;                  /* a table that is reported or recorded uses it on this host */
    bool only_counts;             /* the one that is reported just counts it, by count_event() */
    struct field fields[NFIELDS]; /* where its fields are */
    char *print;                  /* -e vmexit: its print fmt, with names of reasons; else NULL */
};

/*
 * A source of events: this host, or a recording.  The functions do what the two do in different
 * ways.  Times are those of the trace clock, in nanoseconds.
 */
struct source {
    /* Reads the next sub-buffers of s to s->pages.  Returns false if there are none now. */
    bool (*read_pages)(struct stream *s);
    /* Adds to s what its CPU lost before the sub-buffer that was just opened. */
    void (*add_lost)(struct stream *s);
    /* Data of s is corrupt: ends kvmstat or, if others changed the instance, drops the data. */
    void (*refuse)(struct stream *s, const char *what);
    /* Puts thread tid's name, cut to size bytes, in name.  Returns false if it is not known. */
    bool (*find_comm)(int tid, char *name, size_t size);
    /* Returns the process id of the thread that had the id tid at that time; 0: not known. */
    int (*find_pid)(int tid, uint64_t time);
    /* Returns the thread that had the id tid then, new if need be; NULL: process not known. */
    struct thread *(*find_thread)(int tid, uint64_t time);
    /* Finds out about the process that had the id g->pid at that time; g is new. */
    void (*learn_guest)(struct guest *g, uint64_t time);
    /* Sets t->vcpu, if something tells which one t runs, or t->known to MIXED. */
    void (*find_vcpu)(struct thread *t);
    /*
     * Called when the id child was given to a new thread of process pid, or to that process, at
     * that time: ends the thread or process that had the id before.
     */
    void (*end_former)(int child, int pid, uint64_t time);
    /*
     * Returns the nanoseconds from 1970 to the trace clock's zero, in whole microseconds, as the
     * report of an interval that ended at that time has them; 0 if nothing tells.
     */
    uint64_t (*epoch_offset)(uint64_t time);
};

/* The source that is reported. */
static const struct source *source;

/* What the user asked for. */
static struct {
    bool shares;       /* -c */
    bool no_header;    /* -H */
    bool json;         /* -j */
    bool metrics;      /* -m */
    bool names;        /* -n */
    int sums;          /* -s: 1, a row for each guest; -ss: 2, one for the host */
    bool no_zeros;     /* -z */
    char stamp;        /* -T: `d', `u' or 0 */
    enum table table;  /* -e: the table that is reported */
    unsigned more;     /* -e: those whose events are recorded, too, as bits by enum table */
    bool all;          /* -e all: of these, only those that the host can have */
    const char *order; /* -k: name of the column whose highest values come first; else NULL */
    bool by_time;      /* -e: that column is time */
    uint64_t rows;     /* -l: most rows of a report or, with -e, of a vCPU; 0: no limit */
    uint64_t kib;      /* -b: KiB of each per-CPU buffer */
    bool some;         /* -p: not all guests are reported */
    int *pids;         /* -p: process ids */
    size_t npids;      /* number of pids */
    char **guests;     /* -p: guests' names, as -n shows them */
    size_t nguests;    /* number of these names */
    const char *list;  /* -p's list, if it has a comma: it may be one guest's name; else NULL */
    const char *read;  /* -r: the recording to report; else NULL */
    const char *write; /* -w: the recording to make; else NULL */
    uint64_t interval; /* nanoseconds; 0: none was given */
    int decimals;      /* number of decimals that the interval was given with */
    uint64_t count;    /* number of reports; 0: no limit */
} options;

/* What is read, of the instance or of a recording.  Times are those of the trace clock. */
static struct {
    enum host_kind host;     /* the kind of host that the events are of */
    struct page_layout page; /* layout of the sub-buffers */
    size_t chunk;            /* bytes of a stream that are read at a time */
    struct stream *streams;  /* the per-CPU buffers; -r: those that have sub-buffers */
    size_t nstreams;         /* number of streams */
    struct stream **heap;    /* room for nstreams: the streams with an event to count */
    uint64_t start;          /* start of the first interval; no event before it counts */
    uint64_t drained;        /* all events before this time were counted */
    uint64_t gap;            /* the latest gap of all streams, or mended if that is later */
    uint64_t mended;         /* when others' changes were last set right; 0: there were none */
    uint64_t lost;           /* number of events that the reports up to now told to be lost */
    bool lossy;              /* something is missing: the exit status is 3 */
} reading;

/* The guests, and the threads that run their vCPUs. */
static struct {
    struct guest **guests;       /* all guests, in order of pid */
    size_t nguests;              /* number of guests */
    struct thread **threads;     /* open hash table by tid, see thread_slot() */
    size_t nthreads;             /* number of threads */
    size_t space;                /* slots of the hash table, a power of two */
    uint64_t odd;                /* multiplier of the hash table, random: nobody else knows it */
    size_t nvcpus;               /* number of vCPUs of all guests */
    bool any_new;                /* some thread is_new */
    uint64_t unknown;            /* events since the last report of threads of unknown processes */
    struct birth births[BIRTHS]; /* by tid modulo BIRTHS */
} world;

/* Functions that are called before they are defined: they end kvmstat, or save what -w records. */
static _Noreturn void leave(int status);
static _Noreturn void leave_by_signal(int sig);
static void save_command(int tid);
static void save_thread(const struct thread *t);
static void save_guest(struct guest *g);
static void save_subbuf(struct stream *s);

/*
 * Helpers of all parts.
 */

/* Returns whether a recording is reported (-r), not this host. */
static bool is_recorded(void)
{
    return options.read != NULL;
}

/* The first signal that asked kvmstat to end; 0 if none did. */
static volatile sig_atomic_t signalled;

/* The signals that ask kvmstat to end; SIGALRM comes from on_signal(). */
static const int endings[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGXCPU, SIGALRM};
enum { NENDINGS = sizeof(endings) / sizeof(endings[0]) };

/* sigprocmask() with the signals in endings.  Sets *old to the signal mask before. */
static void mask_signals(int how, sigset_t *old)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < NENDINGS; i++)
        sigaddset(&set, endings[i]);
    sigprocmask(how, &set, old);
}

/*
 * Writes the size bytes at s to fd, waiting for the reader; with one write() unless the kernel
 * takes fewer bytes.  Only a signal that ends kvmstat stops it: if one comes just before write(),
 * on_signal() has another one follow.  Returns 0 or an errno: EINTR if a signal stopped it.
 */
static int write_patiently(int fd, const char *s, size_t size)
{
    sigset_t before;
    size_t done = 0;
    int error = 0;

    mask_signals(
        SIG_UNBLOCK, &before); /* or kvmstat would wait for ever if the reader never reads on */
    do {
        ssize_t r = write(fd, s + done, size - done);
        if (r >= 0)
            done += (size_t)r;
        else if (errno == EAGAIN)
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        else if (errno != EINTR)
            error = errno;
    } while (done < size && error == 0 && signalled == 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return error == 0 && done < size ? EINTR : error;
}

/* Prints a message to stderr, as one line that begins with "kvmstat: ". */
static void complain_with(const char *format, va_list args)
{
    static char line[1 << 16];
    size_t size = strlen(strcpy(line, "kvmstat: "));

    vsnprintf(line + size, sizeof(line) - size - 1, format, args);
    size = strlen(line);
    line[size++] = '\n';
    write_patiently(STDERR_FILENO, line, size);
}

/* Prints a message to stderr, as one line that begins with "kvmstat: ". */
__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain_with(format, args);
    va_end(args);
}

/* Prints an error message to stderr, as complain() does, and ends kvmstat with status 1. */
__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    complain_with(format, args);
    va_end(args);
    leave(1);
}

/* realloc() for n objects of size bytes, which must not be 0.  Ends kvmstat if memory is short. */
static void *resize(void *p, size_t n, size_t size)
{
    void *q = n > SIZE_MAX / size ? NULL : realloc(p, n * size);

    if (q == NULL)
        fail("out of memory");
    return q;
}

/* strdup().  Ends kvmstat if memory is short. */
static char *copy(const char *s)
{
    size_t size = strlen(s) + 1;

    return memcpy(resize(NULL, size, 1), s, size);
}

/* Returns a path that is made as by printf(3); the next call overwrites it. */
__attribute__((format(printf, 1, 2))) static const char *path_of(const char *format, ...)
{
    static char path[PATH_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(path, sizeof(path), format, args);
    va_end(args);
    return path;
}

/*
 * Makes room for one more object of size bytes behind the n at p.  The capacity is the next power
 * of two, so only this function may ever have made room in that array.  Returns the array, which
 * may have moved; ends kvmstat if memory is short.
 */
static void *grow(void *p, size_t n, size_t size)
{
    return (n & (n - 1)) == 0 ? resize(p, n == 0 ? 1 : n * 2, size) : p;
}

/* Like grow(), but the room is at index i: moves the objects from there on up by one. */
static void *insert(void *p, size_t n, size_t size, size_t i)
{
    char *q = grow(p, n, size); /* if this ends kvmstat, the n objects are still looked at */

    memmove(q + (i + 1) * size, q + i * size, (n - i) * size);
    return q;
}

/*
 * Sets i to the lowest index of n objects for which before, an expression of i, is false; it is
 * true of all that are in front of that one.  i is n if there is none.
 */
#define FIND_PLACE(i, n, before)                                                                   \
    do {                                                                                           \
        size_t low = 0, high = (n);                                                                \
        while (low < high) {                                                                       \
            (i) = low + (high - low) / 2;                                                          \
            if (before)                                                                            \
                low = (i) + 1;                                                                     \
            else                                                                                   \
                high = (i);                                                                        \
        }                                                                                          \
        (i) = low;                                                                                 \
    } while (0)

/* Returns a new object of size bytes, all zero.  Ends kvmstat if memory is short. */
static void *create(size_t size)
{
    return memset(resize(NULL, 1, size), 0, size);
}

/*
 * Nanoseconds that CLOCK_MONOTONIC is ahead of the events' clock in kvmstat's time name space
 * (Linux 5.6); modulo 2^64 if it is behind.
 */
static uint64_t clock_offset;

/* Returns t, which is not negative, in nanoseconds. */
static uint64_t to_ns(struct timespec t)
{
    return (uint64_t)t.tv_sec * NSEC + (uint64_t)t.tv_nsec;
}

/* Returns the time of clock in nanoseconds; CLOCK_MONOTONIC's is that of the events' clock. */
static uint64_t now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return to_ns(t) - (clock == CLOCK_MONOTONIC ? clock_offset : 0);
}

/* Returns part's share in whole, in hundredths of a per cent; 0 if whole is 0. */
static uint64_t hundredths_of(uint64_t part, uint64_t whole)
{
    if (whole > UINT64_MAX / 10000)
        return part / (whole / 10000);
    return whole == 0 ? 0 : part * 10000 / whole;
}

/*
 * Returns the unsigned little-endian number of 1, 2, 4 or 8 bytes at p; 0 if size is another.  The
 * commonest sizes are tested first.
 */
static uint64_t load(const uint8_t *p, size_t size)
{
    uint64_t u64;
    uint32_t u32;
    uint16_t u16;

    if (size == sizeof(u32))
        return memcpy(&u32, p, sizeof(u32)), le32toh(u32);
    if (size == sizeof(u64))
        return memcpy(&u64, p, sizeof(u64)), le64toh(u64);
    if (size == sizeof(u16))
        return memcpy(&u16, p, sizeof(u16)), le16toh(u16);
    return size == 1 ? *p : 0;
}

/*
 * Parses the decimal digits at *s to *value and sets *s behind them.  Returns false, and leaves *s,
 * if there are none or the number is larger than max, which must be at least 9.
 */
static bool parse_digits(const char **s, uint64_t max, uint64_t *value)
{
    const char *p = *s;

    for (*value = 0; isdigit((unsigned char)*p); p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (*value > (max - digit) / 10)
            return false;
        *value = *value * 10 + digit;
    }
    if (p == *s)
        return false;
    *s = p;
    return true;
}

/* Returns the number that s is, all digits and up to INT_MAX; -1 if s is anything else. */
static int parse_int(const char *s)
{
    uint64_t value;

    return parse_digits(&s, INT_MAX, &value) && *s == '\0' ? (int)value : -1;
}

/* Makes room for size more bytes in t, or ends kvmstat.  Returns where they start. */
static char *reserve(struct text *t, size_t size)
{
    if (t->s == NULL || t->space - t->size < size) {
        size_t space = (t->size + size) * 2 + 1;
        t->s = resize(t->s, space, 1); /* if this ends kvmstat, texts are still written */
        t->space = space;
    }
    return t->s + t->size;
}

/* Appends the size bytes at s, which may be NULL if size is 0. */
static void put_bytes(struct text *t, const char *s, size_t size)
{
    char *place = reserve(t, size);

    if (size != 0) /* memcpy() must not be given NULL */
        memcpy(place, s, size);
    t->size += size;
}

/* Appends value as a little-endian number of 2, 4 or 8 bytes, as load() reads it. */
static void put_number(struct text *t, uint64_t value, size_t size)
{
    uint64_t u64 = htole64(value);

    put_bytes(t, (char *)&u64, size);
}

/*
 * Code points that a terminal must not get from a name: controls (general category Cc), characters
 * that cannot be seen and may change how the rest of a line reads (Cf, Zl and Zp of Unicode 16),
 * and unassigned code points among the latter.
 */
static const struct {
    uint32_t first; /* first code point of a range; ranges are in ascending order */
    uint32_t last;  /* last code point of the range */
} hidden[] = {{0, 0x1f}, {0x7f, 0x9f}, {0xad, 0xad}, {0x600, 0x605}, {0x61c, 0x61c}, {0x6dd, 0x6dd},
    {0x70f, 0x70f}, {0x890, 0x891}, {0x8e2, 0x8e2}, {0x180e, 0x180e}, {0x200b, 0x200f},
    {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0x110bd, 0x110bd},
    {0x110cd, 0x110cd}, {0x13430, 0x1343f}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a},
    {0xe0000, 0xe007f}};

/*
 * Returns the length in bytes of the valid UTF-8 sequence at s, and sets *c to its code point;
 * returns 0 if there is none.
 */
static size_t take_character(const char *s, uint32_t *c)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)*s;
    size_t size = first < 0x80       ? 1
                  : first >> 5 == 6  ? 2
                  : first >> 4 == 14 ? 3
                  : first >> 3 == 30 ? 4
                                     : 0;

    *c = size == 1 ? first : first & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((unsigned char)s[i] >> 6 != 2)
            return 0; /* also if it is the NUL at the end */
        *c = *c << 6 | ((unsigned char)s[i] & 0x3f);
    }
    bool valid = size != 0 && *c >= least[size] && *c <= 0x10ffff && (*c < 0xd800 || *c > 0xdfff);
    return valid ? size : 0;
}

/* Returns the length in bytes of the UTF-8 sequence at s; 0 if it is invalid, or one of hidden. */
static size_t printable(const char *s)
{
    uint32_t c;
    size_t size = take_character(s, &c);

    for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]) && hidden[i].first <= c; i++) {
        if (c <= hidden[i].last)
            return 0;
    }
    return size;
}

/* Cuts name to at most MAX_NAME bytes, but not within a character. */
static void cut_name(char *name)
{
    size_t size = 0, length;
    uint32_t c;

    while (name[size] != '\0') {
        length = take_character(name + size, &c);
        length = length == 0 ? 1 : length;
        if (size + length > MAX_NAME)
            break;
        size += length;
    }
    name[size] = '\0';
}

/* Appends name, with \xHH for bytes that a terminal must not get, and \\ for \. */
static void put_name(struct text *t, const char *name)
{
    char escape[8];

    while (*name != '\0') {
        size_t size = printable(name);
        if (size == 0 || *name == '\\') {
            snprintf(escape, sizeof(escape), size != 0 ? "\\\\" : "\\x%02x",
                (unsigned)(unsigned char)*name);
            put_bytes(t, escape, strlen(escape));
            size = 1;
        } else {
            put_bytes(t, name, size);
        }
        name += size;
    }
}

/* Puts the decimal digits of value and a NUL at the end of buf.  Returns where they start. */
static char *digits(uint64_t value, char buf[static 21])
{
    char *p = buf + 20;

    *p = '\0';
    do
        *--p = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    return p;
}

/* Returns a copy of s, escaped by put_name(), that can be escaped.  The caller frees it. */
static char *escaped(const char *s)
{
    struct text t = {.s = NULL};

    put_name(&t, s);
    put_bytes(&t, "", 1);
    return t.s;
}

static void print_usage(FILE *out)
{
    fputs("usage: kvmstat [-cHhjmnsVz] [-b kib]\n"
          "               [-e vmexit|mmio|ioport|msr|cpuid|hypercall] [-k column]\n"
          "               [-l rows] [-p guest[,guest...]] [-r file | -w file] [-T d|u]\n"
          "               [interval [count]]\n",
        out);
}

/* Ends kvmstat with status 2 and a message: what, word (made printable) and why, then the usage. */
static _Noreturn void usage_error(const char *what, const char *word, const char *why)
{
    fprintf(stderr, "kvmstat: %s%s%s\n", what, escaped(word), why);
    print_usage(stderr);
    fputs("kvmstat -h says what each option and column means.\n", stderr);
    leave(2);
}

/*
 * Reads up to size - 1 bytes of the file path, relative to directory dir, and puts a NUL behind
 * them.  Returns the number of bytes, or -1 with errno set.
 */
static ssize_t read_file(int dir, const char *path, char *buf, size_t size)
{
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t r;

    if (fd < 0)
        return -1;
    while ((r = read(fd, buf + n, size - 1 - n)) > 0)
        n += (size_t)r;
    int error = errno;
    close(fd);
    errno = error;
    buf[n] = '\0';
    return r < 0 ? -1 : (ssize_t)n;
}

/*
 * Makes s the content of the existing file path, relative to directory dir, with one write().
 * Returns 0, or -1 with errno set.
 */
static int write_file(int dir, const char *path, const char *s)
{
    int fd = openat(dir, path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    size_t size = strlen(s);

    if (fd < 0)
        return -1;
    ssize_t r = write(fd, s, size);
    int error = errno;
    close(fd);
    errno = error;
    return r == (ssize_t)size ? 0 : -1;
}

/* opendir() of path, relative to directory dir. */
static DIR *open_dir(int dir, const char *path)
{
    int fd = openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);

    if (d == NULL && fd >= 0)
        close(fd);
    return d;
}

/* Returns whether st is that of a regular file that this user owns. */
static bool is_own(const struct stat *st)
{
    return S_ISREG(st->st_mode) && st->st_uid == geteuid();
}

/*
 * Returns whether this user owns the directory dir, and needs no capability to make, replace and
 * remove files in it.
 */
static bool is_own_directory(int dir)
{
    const mode_t needed = S_IWUSR | S_IXUSR;
    struct stat st;

    return fstat(dir, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & needed) == needed;
}

/*
 * Other users who can write to a directory could take a new file's name there first: so it has a
 * random number behind this text.  PCP's agent skips names that begin with a dot.
 */
static const char new_name[] = ".kvmstat.";
enum { TRIES = 100 }; /* attempts to make a file or directory of such a name */

/* Sets name to one that nobody can guess. */
static void make_name(char name[static NAME_MAX + 1])
{
    uint64_t number;

    if (getrandom(&number, sizeof(number), 0) < 0)
        number = now(CLOCK_MONOTONIC); /* the next best */
    snprintf(name, NAME_MAX + 1, "%s%016" PRIx64, new_name, number);
}

/*
 * Creates a file in directory dir and sets name to its name, which make_name() makes.  Returns its
 * descriptor, or -1 with errno set.
 */
static int create_file(int dir, char name[static NAME_MAX + 1])
{
    int fd = -1;

    for (int i = 0; i < TRIES && (i == 0 || errno == EEXIST) && fd < 0; i++) {
        make_name(name);
        fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    return fd;
}

/* Remedies: all that a report of a host needs, for whoever lacks one thing mostly lacks others. */
static const char have_rights[] =
    "run it as the host's root; in a container, with --pid=host, --userns=host, and --privileged "
    "or CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; recordings (-r) need none of this";
static const char load_kvm[] =
    "load it: modprobe kvm_intel, or kvm_amd; if that fails, virtualization is off in the firmware "
    "or, in a virtual machine, on its host; recordings (-r) need none of this";

/* Prints that an operation on object failed, as errno tells, and a remedy; ends kvmstat. */
static _Noreturn void fail_errno(const char *object)
{
    int error = errno;
    char lockdown[256] = "";
    const char *remedy = "see DIAGNOSTICS in kvmstat(1)";

    read_file(AT_FDCWD, "/sys/kernel/security/lockdown", lockdown, sizeof(lockdown));
    if ((error == EPERM || error == EACCES) && geteuid() != 0)
        remedy = "run as root; recordings (-r) need no rights";
    else if (error == EPERM && strstr(lockdown, "[confidentiality]") != NULL)
        remedy = "the kernel is locked down: boot it without lockdown=confidentiality";
    else if (error == EPERM || error == EACCES)
        fail("%s: %s (the kernel is locked down, or root has few rights here: %s)", object,
            strerror(error), have_rights);
    else if (error == ENOMEM)
        remedy = "ask for less buffer with -b";
    else if (error == EMFILE || error == ENFILE)
        remedy = "raise the limit of open files: ulimit -n, or sysctl fs.file-max";
    else if (error == ENODEV)
        remedy = "the kernel has no tracefs: it needs CONFIG_FTRACE and CONFIG_EVENT_TRACING";
    else if (error == EROFS)
        remedy = "mount it anew: mount -o remount,rw /sys/kernel/tracing";
    else if (error == ENOSYS)
        remedy = "mount it: mount -t tracefs nodev /sys/kernel/tracing";
    fail("%s: %s (%s)", object, strerror(error), remedy);
}

/*
 * Rights.  kvmstat gives up those that it does not need while it reports.
 */

/* Capabilities that kvmstat may need while it reports, numbered as in linux/capability.h. */
enum { DAC_OVERRIDE = 1, DAC_READ_SEARCH = 2, SYS_PTRACE = 19 };

/* The first argument of capget(2) and capset(2). */
struct capability_header {
    uint32_t version; /* CAPABILITY_VERSION */
    int pid;          /* 0: this process */
};
#define CAPABILITY_VERSION 0x20080522 /* version 3, Linux 2.6.26: two sets of 32 each */

/* 32 capabilities, as bits. */
struct capability_set {
    uint32_t effective;   /* in force */
    uint32_t permitted;   /* may be put in force */
    uint32_t inheritable; /* may be permitted in a program that this one executes */
};

/* Returns whether one of the first 32 capabilities is in force; true if nothing tells. */
static bool has_capability(int capability)
{
    struct capability_header header = {CAPABILITY_VERSION, 0};
    struct capability_set sets[2];

    return syscall(SYS_capget, &header, sets) != 0 || (sets[0].effective >> capability & 1) != 0;
}

/* Ensures that no program that this process executes can have more rights than the process. */
static void bar_privileges(void)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L);
    for (long c = 0; prctl(PR_CAPBSET_DROP, c, 0L, 0L, 0L) == 0; c++)
        ; /* until c is no capability that the kernel knows */
}

/* Gives up for good all capabilities but those in kept, which has bits of the first 32. */
static void keep_capabilities(uint32_t kept)
{
    struct capability_header header = {CAPABILITY_VERSION, 0};
    struct capability_set sets[2];

    bar_privileges();
    if (syscall(SYS_capget, &header, sets) != 0)
        return;
    for (int i = 0; i < 2; i++) {
        uint32_t mask = i == 0 ? kept : 0;
        sets[i].effective &= mask;
        sets[i].permitted &= mask;
        sets[i].inheritable = 0;
    }
    syscall(SYS_capset, &header, sets);
}

/*
 * Gives up for good all rights that an ordinary user does not have.  Root becomes the user nobody:
 * root without capabilities would still own files, and programs that it executes would have
 * capabilities again.
 */
static void drop_privileges(void)
{
    const uid_t nobody = 65534; /* in all distributions; also the kernel's overflowuid */

    bar_privileges();
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(nobody, nobody, nobody) != 0 ||
                              setresuid(nobody, nobody, nobody) != 0))
        errno = 0; /* a container may have no such user, or its root may not change to it */
    keep_capabilities(0);
}

/*
 * Formats: of events, and of sub-buffers.  The kernel describes them as text, which is parsed to
 * offsets.
 */

/* The fields that all events have (struct trace_entry) are at the same places in all kernels. */
#define COMMON_PID_AT 4u /* offset of common_pid, which has 4 bytes */
#define COMMON_SIZE 8u   /* bytes of all of them */

#define COMMIT_LENGTH 0xfffffu /* bits of commit: bytes of data; there cannot be more */

static const char *const field_names[NFIELDS] = {
    [COMMON_PID] = "common_pid",
    [VCPU_ID] = "vcpu_id",
    [EXIT_REASON] = "exit_reason",
    [ISA] = "isa",
    [INFO1] = "info1",
    [RET] = "ret",
    [ESR_EC] = "esr_ec",
    [SCAUSE] = "scause",
    [STVAL] = "stval",
    [REASON] = "reason",
    [ERRNO] = "errno",
    [PID] = "pid",
    [LOAD] = "load",
    [TYPE] = "type",
    [GPA] = "gpa",
    [RW] = "rw",
    [PORT] = "port",
    [ECX] = "ecx",
    [WRITE] = "write",
    [FUNCTION] = "function",
    [NR] = "nr",
    [CLONE_FLAGS] = "clone_flags",
    [SYMBOL] = "?", /* no field has this name */
};

/*
 * Parses the first field description in text, which is the rest of a file
 * events/SYSTEM/EVENT/format or events/header_page and is overwritten.  Sets *name to the field's
 * name, in place, and *f to where the field is.  Returns the text behind the description, or NULL
 * if there is no further one.
 */
static char *next_field(char *text, char **name, struct field *f)
{
    char *line = strstr(text, "field:"), *end, *at, *size;

    if (line == NULL || (end = strchr(line, '\n')) == NULL)
        return NULL;
    *end = '\0';
    at = strstr(line, "offset:");
    size = strstr(line, "size:");
    *name = strchr(line, ';');
    if (at == NULL || size == NULL || *name == NULL)
        return NULL;
    f->offset = strtoul(at + strlen("offset:"), NULL, 10);
    f->size = strtoul(size + strlen("size:"), NULL, 10);
    /* The name is the last word before the semicolon, as in "unsigned int vcpu_id;". */
    **name = '\0';
    while (*name > line && (isalnum((unsigned char)(*name)[-1]) || (*name)[-1] == '_'))
        --*name;
    return end + 1;
}

/*
 * Sets type's id, fields and print from the text of its format, which is overwritten.  Returns
 * false if the text has no valid id, or common_pid is not where all events have it.
 */
static bool parse_format(struct event_type *type, char *text)
{
    static const char table[] = "__print_symbolic(REC->";
    char *id = strstr(text, "ID:"), *name, *print = strstr(text, "print fmt:");
    const char *symbol = print == NULL ? NULL : strstr(print, table);
    struct field f;
    long value = id == NULL ? -1 : strtol(id + 3, NULL, 10);

    if (value < 1 || value > UINT16_MAX)
        return false;
    symbol = symbol == NULL ? "" : symbol + strlen(table);
    while ((text = next_field(text, &name, &f)) != NULL) {
        if (f.offset >= UINT16_MAX || f.size > 8)
            continue;
        for (int i = 0; i < NFIELDS; i++) {
            if (strcmp(name, field_names[i]) == 0)
                type->fields[i] = f;
        }
        if (*name != '\0' && strncmp(symbol, name, strlen(name)) == 0 &&
            strchr(" ,&", symbol[strlen(name)]) != NULL)
            type->fields[SYMBOL] = f;
    }
    free(type->print);
    type->print = print == NULL || options.table != VMEXIT ? NULL : copy(print);
    type->id = (int)value;
    return type->fields[COMMON_PID].offset == COMMON_PID_AT && type->fields[COMMON_PID].size == 4;
}

/*
 * Sets *page from the text of events/header_page, which is overwritten.  Returns false if the text
 * describes no layout that subbuf_open() can read.
 */
static bool parse_header_page(struct page_layout *page, char *text)
{
    struct field f;
    char *name;

    *page = (struct page_layout){.size = 0};
    while ((text = next_field(text, &name, &f)) != NULL) {
        if (f.offset >= 64 || f.size > COMMIT_LENGTH + 1)
            continue;
        if (strcmp(name, "timestamp") == 0)
            page->time = f;
        else if (strcmp(name, "commit") == 0)
            page->commit = f;
        else if (strcmp(name, "data") == 0) {
            page->data = f.offset;
            page->size = f.offset + f.size;
        }
    }
    return page->time.size == 8 && page->time.offset + 8 <= page->data &&
           (page->commit.size == 4 || page->commit.size == 8) &&
           page->commit.offset + page->commit.size <= page->data && page->size > page->data;
}

/* Returns the value at f in event r; 0 if f is not within r, or there is no such field. */
static uint64_t field_value(const struct record *r, struct field f)
{
    return f.offset + f.size > r->size ? 0 : load(r->data + f.offset, f.size);
}

/* Returns whether events of r's type have the field. */
static bool has_field(const struct record *r, enum field_name field)
{
    return r->type->fields[field].size != 0;
}

/* Returns the value of the field of r; 0 if r's type has no such field. */
static uint64_t value_of(const struct record *r, enum field_name field)
{
    return field_value(r, r->type->fields[field]);
}

/*
 * Names of exit reasons, from print fmt of the event that tells them.
 */

/* The kernel's name of an exit reason. */
struct symbol {
    uint64_t value; /* the reason's number: of 32 bits or, on RISC-V, with RISCV64_INTERRUPT */
    char name[40];  /* its name, cut to fit, in printable ASCII characters */
};

/*
 * The names of exit reasons, from the first two tables in print fmt of the event that tells the
 * reasons: x86 has one table for VMX and one for SVM, arm64 one for ret and one for esr_ec.  RISC-V
 * has none there: its names are riscv64_causes.
 */
static struct {
    struct symbol *list; /* in order of value */
    size_t n;            /* number of symbols in list */
} symbols[2];

/*
 * Returns the sum of the numbers at *s, in parentheses or not, and sets *s behind them.  If there
 * is no number, returns 0 and leaves *s.
 */
static uint64_t take_sum(const char **s)
{
    uint64_t sum = 0;
    char *end;

    for (const char *next = *s;; next = *s + strspn(*s, "+")) {
        next += strspn(next, " (");
        sum += (uint64_t)strtoll(next, &end, 0); /* signed: -1 occurs */
        if (end == next)
            return sum;
        *s = end + strspn(end, ") ");
        if (**s != '+')
            return sum;
    }
}

/*
 * Parses the next symbol { VALUE, "NAME" } at s to *symbol, with an empty name if it has none.
 * Returns the text behind the symbol, or NULL if the table ends before it.  A value may be a sum,
 * and a name may consist of several strings: { 0x040 + 6, "UD excp" }, { 2, "KVM_EXIT_" "IO" }.
 */
static const char *next_symbol(const char *s, struct symbol *symbol)
{
    size_t size = 0;

    s += strspn(s, " ,");
    if (*s++ != '{')
        return NULL;
    symbol->value = (uint32_t)take_sum(&s);
    for (s += strcspn(s, "\"}"); *s == '"'; s += strspn(s, " ")) {
        for (s++; *s != '"' && *s != '\0'; s++) {
            if (size < sizeof(symbol->name) - 1)
                symbol->name[size++] = *s >= ' ' && *s <= '~' ? *s : '?';
        }
        s += *s == '"';
    }
    symbol->name[size] = '\0';
    s += strcspn(s, "}");
    return *s == '}' ? s + 1 : NULL;
}

/* Returns the index in symbols[table].list of the symbol with the value, or where it belongs. */
static size_t symbol_index(size_t table, uint64_t value)
{
    size_t i;

    FIND_PLACE(i, symbols[table].n, symbols[table].list[i].value < value);
    return i;
}

/* Adds symbol to symbols[table], unless one with its value is there already. */
static void add_symbol(size_t table, const struct symbol *symbol)
{
    struct symbol *list = symbols[table].list;
    size_t n = symbols[table].n, i = symbol_index(table, symbol->value);

    if (i < n && list[i].value == symbol->value)
        return;
    symbols[table].list = list = insert(list, n, sizeof(*list), i);
    symbols[table].n++;
    list[i] = *symbol;
}

/* Adds to symbols those in print, the print fmt of an event, which may have none or be NULL. */
static void parse_symbols(const char *print)
{
    static const char table[] = "__print_symbolic(";
    const char *s = print;

    for (size_t i = 0; i < 2 && s != NULL && (s = strstr(s, table)) != NULL; i++) {
        const char *next = strchr(s += strlen(table), '{');
        struct symbol symbol;
        while (next != NULL && (next = next_symbol(next, &symbol)) != NULL) {
            s = next;
            if (*symbol.name != '\0')
                add_symbol(i, &symbol);
        }
    }
}

/*
 * Sub-buffers.  These functions depend on nothing but the bytes that they are given.
 * linux/ring_buffer.h has the layout of events, kernel/trace/ring_buffer.c that of the header.
 */

#define COMMIT_STORED 0x40000000u /* flag of commit: the number lost follows the data, a long */
#define COMMIT_MISSED 0x80000000u /* flag of commit: events were lost before this sub-buffer */

/*
 * The type is an event header's low 5 bits.  1 to 28 is the number of 4-byte words of data; with 0,
 * a word with the length in bytes precedes the data.
 */
#define TYPE_MASK 31u        /* the bits of the type */
#define TYPE_PADDING 29u     /* no event, but room that is not used */
#define TYPE_TIME_EXTEND 30u /* no event, but the high bits of a time delta */
#define TYPE_TIME_STAMP 31u  /* no event, but an absolute time stamp */
#define TIME_SHIFT 27        /* bits of the time delta in an event header */
#define TIME_STAMP_BITS 59   /* bits of an absolute time stamp */

/*
 * Sets b to the start of the sub-buffer in the size bytes at p.  Returns false if its header, or
 * the data that the header tells of, does not fit in these.
 */
static bool subbuf_open(
    struct subbuf *b, const uint8_t *p, size_t size, const struct page_layout *layout)
{
    if (size < layout->data)
        return false;
    /* The word may be sign-extended, so its flags are masked off, not subtracted. */
    uint64_t commit = load(p + layout->commit.offset, layout->commit.size);
    b->data = p + layout->data;
    b->size = commit & COMMIT_LENGTH;
    b->at = 0;
    b->time = load(p + layout->time.offset, layout->time.size);
    b->missed = (commit & COMMIT_MISSED) != 0;
    b->lost = 0;
    if (b->size > size - layout->data)
        return false;
    if (b->missed && (commit & COMMIT_STORED) != 0 &&
        layout->commit.size <= size - layout->data - b->size)
        b->lost = load(b->data + b->size, layout->commit.size);
    return true;
}

/*
 * Takes the next event of b.  Returns 1 if *r is one, 0 if there is no further one, -1 if the bytes
 * make no sense.
 */
static inline int subbuf_next(struct subbuf *b, struct record *r)
{
    while (b->size - b->at >= 4) {
        const uint8_t *body = b->data + b->at + 4;
        size_t left = b->size - b->at - 4, length, skip = 0;
        uint32_t header = (uint32_t)load(body - 4, 4), type = header & TYPE_MASK, word = 0;
        uint64_t delta = header >> 5;

        if (type != 0 && type < TYPE_PADDING) {
            length = (size_t)type * 4;
        } else if (type == TYPE_PADDING && delta == 0) {
            return 0; /* the rest of the sub-buffer is empty */
        } else {
            if (left < 4)
                return -1;
            word = (uint32_t)load(body, 4);
            length = type == 0 || type == TYPE_PADDING ? word : 4; /* bytes, with the word */
            skip = 4;
        }
        if (length < skip || length > left)
            return -1;
        if (type == TYPE_TIME_STAMP) /* its five high bits are those of the time before */
            b->time = b->time >> TIME_STAMP_BITS << TIME_STAMP_BITS;
        if (type >= TYPE_TIME_EXTEND) {
            delta += (uint64_t)word << TIME_SHIFT;
            if (b->time + delta > INT64_MAX)
                return -1; /* all other deltas of a sub-buffer make less than 10 hours */
        }
        b->at += 4 + length;
        b->time += delta;
        if (type < TYPE_PADDING) {
            *r = (struct record){.time = b->time, .data = body + skip, .size = length - skip};
            return 1;
        }
    }
    return b->at == b->size ? 0 : -1;
}

/*
 * Tallies.  With -e, a tally has a key for each reason, address or the like that counted something
 * since the last report.
 */

#define MAX_KEYS 1024u /* -e: keys of a vCPU that are told apart in an interval */

/* For qsort(): ascending order of id, in which key_of() searches. */
static int compare_ids(const void *a, const void *b)
{
    const struct key *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

/*
 * For qsort(): the order of a report, by falling count or, with -k time, by falling total time;
 * OTHER_KEYS is last.
 */
static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    uint64_t left = options.by_time ? x->total : x->count;
    uint64_t right = options.by_time ? y->total : y->count;

    if ((x->id == OTHER_KEYS) != (y->id == OTHER_KEYS))
        return x->id == OTHER_KEYS ? 1 : -1;
    return left != right ? (left > right ? -1 : 1) : compare_ids(a, b);
}

/* Adds the count and the times of other to k. */
static void add_key(struct key *k, const struct key *other)
{
    if (other->timed != 0 && (k->timed == 0 || other->min < k->min))
        k->min = other->min;
    if (other->max > k->max)
        k->max = other->max;
    k->count += other->count;
    k->timed += other->timed;
    k->total += other->total;
}

/* Merges the half of t's keys that a report would list last into the key OTHER_KEYS. */
static void merge_keys(struct tally *t)
{
    struct key other = {.id = OTHER_KEYS};
    size_t kept = t->nkeys / 2;

    qsort(t->keys, t->nkeys, sizeof(*t->keys), compare_keys);
    for (size_t i = kept; i < t->nkeys; i++)
        add_key(&other, &t->keys[i]);
    qsort(t->keys, kept, sizeof(*t->keys), compare_ids);
    t->keys[kept] = other;
    t->nkeys = kept + 1;
}

/*
 * Returns the key of t with the given id, new if need be; valid until the next call.  If t has
 * MAX_KEYS keys, merges half of them first.
 */
static struct key *key_of(struct tally *t, uint64_t id)
{
    size_t i;

    FIND_PLACE(i, t->nkeys, t->keys[i].id < id);
    if (i < t->nkeys && t->keys[i].id == id)
        return &t->keys[i];
    if (t->nkeys == MAX_KEYS) {
        merge_keys(t);
        return key_of(t, id);
    }
    t->keys = insert(t->keys, t->nkeys, sizeof(*t->keys), i);
    t->nkeys++;
    t->keys[i] = (struct key){.id = id};
    return &t->keys[i];
}

/* Clears the counts and frees the keys.  An exit that is still open stays open. */
static void clear_tally(struct tally *t)
{
    memset(t->counts, 0, sizeof(t->counts));
    memset(t->shares, 0, sizeof(t->shares));
    t->shareless = false;
    free(t->keys);
    t->keys = NULL;
    t->nkeys = 0;
}

/* Adds what from has counted to to, and clears from. */
static void move_tally(struct tally *from, struct tally *to)
{
    for (int i = 0; i < NCOUNTERS; i++)
        to->counts[i] += from->counts[i];
    for (int i = 0; i < NSHARES; i++)
        to->shares[i] += from->shares[i];
    to->shareless |= from->shareless;
    for (size_t i = 0; i < from->nkeys; i++)
        add_key(key_of(to, from->keys[i].id), &from->keys[i]);
    clear_tally(from);
}

/*
 * Guests, their vCPUs and the threads that run them.
 */

/* Returns the index in world.guests of the first guest with a larger pid. */
static size_t guest_place(int pid)
{
    size_t i;

    FIND_PLACE(i, world.nguests, world.guests[i]->pid <= pid);
    return i;
}

/* Returns the guest of the process that has the id pid now; NULL if it is not known. */
static struct guest *known_guest(int pid)
{
    size_t i = guest_place(pid);
    struct guest *g = i == 0 ? NULL : world.guests[i - 1];

    return g != NULL && g->pid == pid && !g->former ? g : NULL;
}

/* Makes and returns a guest of the process that had the id pid at the given time. */
static struct guest *add_guest(int pid, uint64_t time)
{
    struct guest *g = create(sizeof(*g));

    g->pid = pid;
    g->stale = true;
    source->learn_guest(g, time);
    size_t i = guest_place(pid);
    world.guests = insert(world.guests, world.nguests, sizeof(struct guest *), i);
    world.nguests++;
    return world.guests[i] = g;
}

/* Returns the guest of the process that had the id pid at the given time, new if need be. */
static struct guest *guest_of(int pid, uint64_t time)
{
    struct guest *g = known_guest(pid);

    return g != NULL ? g : add_guest(pid, time);
}

/* Returns whether name is word or, as a shell's pattern, is matched by it. */
static bool matches(const char *name, const char *word)
{
    return strcmp(name, word) == 0 || fnmatch(word, name, FNM_NOESCAPE) == 0;
}

/*
 * Returns whether g's guest, by its name as -n shows it, is one that word of -p means; NULL means
 * none.
 */
static bool has_name(const struct guest *g, const char *word)
{
    char *shown = g->name == NULL || word == NULL ? NULL : escaped(g->name);
    bool same = shown != NULL && matches(shown, word);

    free(shown);
    return same;
}

/* Notes that g's process lost its id at the given time: nothing more is looked up by that id. */
static void end_guest(struct guest *g, uint64_t time)
{
    g->former = true;
    g->stale = false;
    g->nmachines = 0;
    if (g->gone == 0)
        g->gone = time;
}

/* Returns the index of vCPU id in g->vcpus, or where it belongs. */
static size_t vcpu_place(const struct guest *g, long id)
{
    size_t i;

    FIND_PLACE(i, g->nvcpus, g->vcpus[i]->id < id);
    return i;
}

/* Notes whether v is present now. */
static void set_present(struct vcpu *v, bool present)
{
    v->present = present;
    v->recent |= present;
}

/* Returns whether g has a vCPU with the given number, or had one since the last report. */
static bool has_vcpu(const struct guest *g, long id)
{
    size_t i = vcpu_place(g, id);

    return i < g->nvcpus && g->vcpus[i]->id == id && g->vcpus[i]->recent;
}

/* Returns the vCPU of g with the given number, new if need be. */
static struct vcpu *vcpu_of(struct guest *g, long id)
{
    size_t i = vcpu_place(g, id);

    if (i < g->nvcpus && g->vcpus[i]->id == id)
        return g->vcpus[i];
    world.nvcpus++;
    struct vcpu *v = create(sizeof(*v));
    v->id = id;
    g->vcpus = insert(g->vcpus, g->nvcpus, sizeof(struct vcpu *), i);
    g->nvcpus++;
    return g->vcpus[i] = v;
}

/*
 * Returns the number of the only vCPU that t's guest has.  If that has none any more, as its
 * process is about to end, returns the number of the only vCPU that it had since the last report.
 * Returns -1 if there is none, or more than one, or if t's first event came after the guest's
 * descriptors were read last: its vCPU may have been made since.
 */
static long only_vcpu(const struct thread *t)
{
    const struct guest *g = t->guest;
    bool any_present = false;
    size_t n = 0;
    long id = -1;

    if (!is_recorded() && t->since >= g->read_at)
        return -1;
    for (size_t i = 0; i < g->nvcpus; i++)
        any_present |= g->vcpus[i]->present;
    for (size_t i = 0; i < g->nvcpus; i++) {
        const struct vcpu *v = g->vcpus[i];
        if (any_present ? v->present : v->recent) {
            id = v->id;
            n++;
        }
    }
    return n == 1 ? id : -1;
}

/* Returns the slot of thread tid in world.threads, or the empty one where it belongs. */
static struct thread **thread_slot(int tid)
{
    /* The product's high bits are well mixed; without world.odd, nobody can cause collisions. */
    size_t i = (size_t)(((uint32_t)tid * world.odd >> 32) * world.space >> 32);

    while (world.threads[i] != NULL && world.threads[i]->tid != tid)
        i = (i + 1) & (world.space - 1);
    return &world.threads[i];
}

/* Returns the thread tid, or NULL if it is not known.  The thread's guest may be NULL. */
static struct thread *known_thread(int tid)
{
    return world.space == 0 ? NULL : *thread_slot(tid);
}

/* Gives the table of threads space slots, a power of two, and frees dropped threads (tid 0). */
static void rebuild_threads(size_t space)
{
    struct thread **old = world.threads;
    size_t old_space = world.space;

    world.threads = create(space * sizeof(struct thread *));
    world.space = space;
    world.nthreads = 0;
    for (size_t i = 0; i < old_space; i++) {
        if (old[i] != NULL && old[i]->tid == 0) {
            free(old[i]->pending.keys);
            free(old[i]);
        } else if (old[i] != NULL) {
            *thread_slot(old[i]->tid) = old[i];
            world.nthreads++;
        }
    }
    free(old);
}

/* Returns the thread tid, new if need be.  A new one, or one without a guest, becomes g's. */
static struct thread *thread_of(int tid, struct guest *g)
{
    if (world.nthreads * 2 >= world.space)
        rebuild_threads(world.space == 0 ? 64 : world.space * 2);
    struct thread **slot = thread_slot(tid), *t = *slot;
    if (t == NULL) {
        t = create(sizeof(*t));
        t->tid = tid;
        world.nthreads++;
        *slot = t;
    }
    if (t->guest == NULL) {
        t->guest = g;
        t->tally = &t->pending;
        t->is_new = world.any_new = true;
    }
    return t;
}

/* Returns the slot for the birth of thread tid, which may have another thread's birth. */
static struct birth *birth_of(int tid)
{
    return &world.births[(unsigned)tid % BIRTHS];
}

/*
 * Returns the process id of the thread that had the id tid at the given time of the trace clock; 0
 * if nothing tells.
 */
static int pid_of(int tid, uint64_t time)
{
    const struct thread *t = known_thread(tid);

    if (t != NULL && t->guest != NULL && !t->guest->former)
        return t->guest->pid;
    return source->find_pid(tid, time);
}

/* Notes that v is run by thread tid now (NO_THREAD: by none; 0: it is not known by which). */
static void note_thread(struct vcpu *v, int tid)
{
    if (v->tid != tid)
        v->read_at = 0;
    v->tid = tid;
    v->ended = false;
}

/* Notes that t runs the vCPU with number id, as an event told, and gives it t's pending counts. */
static void note_vcpu(struct thread *t, long id)
{
    if (t->known == TOLD && t->vcpu->id == id && t->vcpu->tid == t->tid && !t->vcpu->ended)
        return;
    if (t->vcpu != NULL && t->vcpu->tid == t->tid)
        note_thread(t->vcpu, 0);
    t->vcpu = vcpu_of(t->guest, id);
    note_thread(t->vcpu, t->tid);
    move_tally(&t->pending, &t->vcpu->tally);
    if (t->known != TOLD && t->pending.since != 0) {
        t->vcpu->tally.open = t->pending.open;
        t->vcpu->tally.since = t->pending.since;
    }
    t->known = TOLD;
    t->tally = &t->vcpu->tally;
}

/*
 * Notes what kvm_get_timer_map told: t loaded, put or made the vCPU with number id.  The event
 * fires at each load, put and creation, so the first one after other events of t is a put, and
 * those events are this vCPU's.  After a load or a creation, t's next event shows whether t runs
 * it.
 */
static void note_load(struct thread *t, long id)
{
    t->loaded = id + 1;
    if (t->ran && t->known != TOLD)
        note_vcpu(t, id);
}

/* Settles t's last exit, as no kvm_mmio follows it any more: a FAULT counts in eptv. */
static void settle_exit(struct thread *t)
{
    if (t->last_exit == FAULT)
        t->tally->counts[EPTV]++;
    t->last_exit = SETTLED;
}

/* Returns the row `?' of t's guest, for t's counts, and notes why; ended: t has ended. */
static struct vcpu *unknown_vcpu(const struct thread *t, bool ended)
{
    static const char several[] = "ran several vCPUs (run each in a thread of its own)";
    static const char short_lived[] =
        "ended before its vCPU was known (a newer kernel may tell it)";
    static const char nameless[] = "does not tell its vCPU (name it as QEMU's -name NAME,"
                                   "debug-threads=on does, or let kvmstat have debugfs)";

    struct vcpu *v = vcpu_of(t->guest, UNKNOWN_VCPU);
    if (v->untold == NULL)
        v->untold = t->known == MIXED ? several : ended ? short_lived : nameless;
    return v;
}

/*
 * Ends t, as a new thread was started with its id: t's pending counts go to its vCPU, or to the row
 * `?'.  The process of the new thread is found at its first event.
 */
static void end_thread(struct thread *t)
{
    if (t->guest == NULL)
        return;
    settle_exit(t);
    long id = t->vcpu != NULL ? t->vcpu->id : t->known == MIXED ? -1 : only_vcpu(t);
    if (t->known != TOLD)
        move_tally(&t->pending, &(id < 0 ? unknown_vcpu(t, true) : vcpu_of(t->guest, id))->tally);
    save_thread(t);
    free(t->pending.keys);
    *t = (struct thread){.tid = t->tid};
}

/*
 * Counting: what each event does to the thread's tally.
 */

/* How an exit reason is counted. */
struct reason {
    uint64_t code;        /* the reason's number */
    enum counter counter; /* its column; NCOUNTERS: the end of the table */
};

/* VMX: the low 16 bits of exit_reason, where isa is 1.  Intel SDM, volume 3, appendix C. */
static const struct reason vmx_reasons[] = {
    {1, IRQX}, {7, IRQWX}, {12, HALTX}, {30, IOX}, {48, EPTV}, {49, MMIOX}, {0, NCOUNTERS}};

/*
 * SVM: exit_reason.  AMD64 APM, volume 2, appendix C.  0xa6 is an idle halt.  Those from 0x80000001
 * on are VMGEXIT's only: MMIO read and write, and a vCPU that halts until it is started.
 */
static const struct reason svm_reasons[] = {{0x60, IRQX}, {0x64, IRQWX}, {0x78, HALTX},
    {0xa6, HALTX}, {0x7b, IOX}, {0x400, EPTV}, {0x80000001, MMIOX}, {0x80000002, MMIOX},
    {0x80000004, HALTX}, {0, NCOUNTERS}};

/* arm64: esr_ec of a trap.  Arm ARM, ESR_ELx.EC: WFx, instruction abort, data abort. */
static const struct reason arm64_reasons[] = {
    {0x01, HALTX}, {0x20, EPTV}, {0x24, EPTV}, {0, NCOUNTERS}};

/* RISC-V: scause of an exception.  Privileged specification, scause: guest-page faults. */
static const struct reason riscv64_reasons[] = {
    {0x14, EPTV}, {0x15, EPTV}, {0x17, EPTV}, {0, NCOUNTERS}};

/* kvm_userspace_exit: reason, as in linux/kvm.h, which musl-gcc does not find. */
enum { KVM_EXIT_IO = 2, KVM_EXIT_HLT = 5, KVM_EXIT_MMIO = 6, KVM_EXIT_IRQ_WINDOW_OPEN = 7 };
static const struct reason user_reasons[] = {{KVM_EXIT_IO, IOX}, {KVM_EXIT_HLT, HALTX},
    {KVM_EXIT_MMIO, MMIOX}, {KVM_EXIT_IRQ_WINDOW_OPEN, IRQWX}, {0, NCOUNTERS}};

#define SVM_NPF 0x400        /* exit_reason of a nested page fault */
#define SVM_NPF_RESERVED 0x8 /* in info1 of such: a reserved bit was set; KVM marks MMIO so */
#define SVM_VMGEXIT 0x403    /* exit_reason of a SEV-ES guest: kvm_vmgexit_enter has its own */
#define ARM64_IRQ 0          /* low byte of ret: an interrupt */
#define ARM64_TRAP 2         /* low byte of ret: a trap, which esr_ec tells */

#define ARM64_SERROR 0x80000000u /* in ret: an SError is pending as well */

#define RISCV64_INTERRUPT (UINT64_C(1) << 63) /* in scause: an interrupt */
#define RISCV64_VIRTUAL_INSTRUCTION 0x16      /* scause: the hypervisor has to execute one ... */
#define RISCV64_WFI 0x10500073                /* ... which stval has: this is WFI */

#define MMIO_READ 1  /* type of kvm_mmio: KVM_TRACE_MMIO_READ of trace/events/kvm.h */
#define MMIO_WRITE 2 /* type of kvm_mmio; 0: a read that user space has yet to answer */

#define DOUBT NSEC /* the longest time from an exit to its kvm_mmio, in nanoseconds */

/* Returns the column of the reason with this code in table; NCOUNTERS if it has none. */
static enum counter counter_of(const struct reason *table, uint64_t code)
{
    while (table->counter != NCOUNTERS && table->code != code)
        table++;
    return table->counter;
}

/* Returns the column of kvm_exit r; NCOUNTERS if it has none. */
static enum counter exit_counter(const struct record *r)
{
    uint64_t reason = value_of(r, EXIT_REASON);

    if (has_field(r, ESR_EC)) {
        uint64_t exception = value_of(r, RET) & 0xff; /* bit 31 tells of an SError */
        return exception == ARM64_IRQ    ? IRQX
               : exception == ARM64_TRAP ? counter_of(arm64_reasons, value_of(r, ESR_EC))
                                         : NCOUNTERS;
    }
    if (has_field(r, SCAUSE)) {
        reason = value_of(r, SCAUSE);
        return (reason & RISCV64_INTERRUPT) != 0 ? IRQX
               : reason == RISCV64_VIRTUAL_INSTRUCTION && value_of(r, STVAL) == RISCV64_WFI
                   ? HALTX
                   : counter_of(riscv64_reasons, reason);
    }
    if (!has_field(r, ISA))
        return NCOUNTERS; /* the reasons of this architecture are not known */
    if (value_of(r, ISA) == 1)
        return counter_of(vmx_reasons, reason & 0xffff);
    if (reason == SVM_NPF && (value_of(r, INFO1) & SVM_NPF_RESERVED) != 0)
        return MMIOX;
    return counter_of(svm_reasons, reason);
}

/* Counts an exit of t in exits, and in column c unless c is NCOUNTERS. */
static void add_exit(struct thread *t, enum counter c)
{
    t->tally->counts[EXITS]++;
    if (c != NCOUNTERS)
        t->tally->counts[c]++;
}

static void count_exit(struct thread *t, struct stream *s)
{
    enum counter c = exit_counter(&s->next);

    add_exit(t, c == EPTV ? NCOUNTERS : c);
    t->last_exit = c == EPTV ? FAULT : c == NCOUNTERS ? OTHER : SETTLED;
    t->exit_time = s->next.time;
    t->exit_stream = s;
}

/*
 * Counts t's last exit, if it is in no column yet, in column c, unless that is NCOUNTERS, or events
 * between the exit and s->next may be lost.
 */
static void count_as(struct thread *t, const struct stream *s, enum counter c)
{
    if (c != NCOUNTERS && t->last_exit != SETTLED && t->exit_time >= s->gap &&
        t->exit_time >= t->exit_stream->gap && t->exit_time >= reading.mended) {
        t->tally->counts[c]++;
        t->last_exit = SETTLED;
    }
}

/*
 * kvm_mmio: t's last exit, which may have looked like a page fault or like an exit without a
 * column, was for MMIO.  Only one kvm_mmio counts for an exit.
 */
static void count_mmio(struct thread *t, struct stream *s)
{
    count_as(t, s, MMIOX);
    settle_exit(t);
}

/* kvm_vmgexit_enter: what t's last exit, a VMGEXIT, was for.  A kvm_mmio may follow. */
static void count_vmgexit(struct thread *t, struct stream *s)
{
    count_as(t, s, counter_of(svm_reasons, value_of(&s->next, EXIT_REASON)));
}

/*
 * Counts in eptv, as an interval ends at end, the faults that no kvm_mmio follows any more: those
 * older than DOUBT, and those of processes that had ended by then.  Younger ones wait for the next
 * report, so that no exit counts twice.  If end is UINT64_MAX, none waits.
 */
static void settle_exits(uint64_t end)
{
    for (size_t i = 0; i < world.space; i++) {
        struct thread *t = world.threads[i];
        if (t == NULL || t->last_exit != FAULT ||
            ((t->guest->gone == 0 || t->guest->gone > end) && end < t->exit_time + DOUBT))
            continue;
        settle_exit(t);
        t->active = true; /* so that find_all_vcpus() gives the count to a vCPU */
    }
}

/*
 * On software hosts, which have no kvm_exit: returns whether this return to user space is a new
 * exit of the guest, and keeps in t what the next call needs.  An instruction that goes on after
 * MMIO (an access across two pages, OUTS from MMIO) has KVM return to user space again without an
 * exit of the guest, and without emulating the instruction anew.
 */
static bool is_user_exit(struct thread *t, const struct record *r)
{
    uint64_t reason = value_of(r, REASON);

    if (value_of(r, ERRNO) != 0)
        return false; /* a signal or an error: the guest did not exit */
    bool again = t->in_mmio && (reason == KVM_EXIT_MMIO || reason == KVM_EXIT_IO);
    t->in_mmio = reason == KVM_EXIT_MMIO;
    return !again;
}

/*
 * kvm_userspace_exit: on software hosts, an exit.  On RISC-V, which has no kvm_mmio, it tells that
 * t's last exit was for MMIO that user space answers.
 */
static void count_user_exit(struct thread *t, struct stream *s)
{
    const struct record *r = &s->next;

    if (reading.host == RISCV64_HOST) {
        if (value_of(r, REASON) == KVM_EXIT_MMIO && value_of(r, ERRNO) == 0)
            count_mmio(t, s);
    } else if (is_user_exit(t, r)) {
        add_exit(t, counter_of(user_reasons, value_of(r, REASON)));
    }
}

/* Counts the event in its type's column.  An exit to user space after it is always a new one. */
static void count_event(struct thread *t, struct stream *s)
{
    t->tally->counts[s->next.type->counter]++;
    t->in_mmio = false;
}

/*
 * Counting keys (-e).  Times are those of perf-kvm(1): an exit takes from kvm_exit to the next
 * kvm_entry, an MMIO write or a port access from kvm_mmio or kvm_pio to the next kvm_entry, and an
 * MMIO read from kvm_exit to kvm_mmio.  Access to an MSR takes from kvm_msr to the next kvm_entry.
 * perf-kvm has no tables of CPUID and hypercalls: they take from kvm_cpuid or kvm_hypercall to the
 * next kvm_entry.
 */

/* Opens the exit or access with this id, which begins with s->next: its end is awaited. */
static void start_timing(struct tally *t, uint64_t id, const struct stream *s)
{
    t->open = id;
    t->since = s->next.time;
}

/* Ends what is open, and adds its duration to the key with this id; unless events were lost. */
static void stop_timing(struct tally *t, uint64_t id, const struct stream *s)
{
    if (t->since != 0 && t->since >= reading.gap && s->next.time >= t->since) {
        uint64_t time = s->next.time - t->since;
        add_key(key_of(t, id), &(struct key){.timed = 1, .total = time, .min = time, .max = time});
    }
    t->since = 0;
}

/* Counts the key with this id once, and opens it. */
static void count_key(struct tally *t, uint64_t id, const struct stream *s)
{
    key_of(t, id)->count++;
    start_timing(t, id, s);
}

/*
 * Set in the id of an exit's key if symbols[1] has its name; clear if symbols[0] has.  No reason
 * has that bit: those of x86 and arm64 have 32 bits, and a RISC-V one has bit 63 if it is an
 * interrupt.
 */
#define SECOND_SYMBOLS (UINT64_C(1) << 62)

/*
 * RISC-V: the names of causes, since the kernel gives none.  They are those of the privileged
 * specification (scause, and its hypervisor extension).
 */
static const struct symbol riscv64_causes[] = {
    {0, "Instruction address misaligned"},
    {1, "Instruction access fault"},
    {2, "Illegal instruction"},
    {3, "Breakpoint"},
    {4, "Load address misaligned"},
    {5, "Load access fault"},
    {6, "Store/AMO address misaligned"},
    {7, "Store/AMO access fault"},
    {8, "Environment call from U-mode or VU-mode"},
    {9, "Environment call from HS-mode"},
    {10, "Environment call from VS-mode"},
    {12, "Instruction page fault"},
    {13, "Load page fault"},
    {15, "Store/AMO page fault"},
    {16, "Double trap"},
    {18, "Software check"},
    {19, "Hardware error"},
    {20, "Instruction guest-page fault"},
    {21, "Load guest-page fault"},
    {22, "Virtual instruction"},
    {23, "Store/AMO guest-page fault"},
    {RISCV64_INTERRUPT | 1, "Supervisor software interrupt"},
    {RISCV64_INTERRUPT | 2, "Virtual supervisor software interrupt"},
    {RISCV64_INTERRUPT | 5, "Supervisor timer interrupt"},
    {RISCV64_INTERRUPT | 6, "Virtual supervisor timer interrupt"},
    {RISCV64_INTERRUPT | 9, "Supervisor external interrupt"},
    {RISCV64_INTERRUPT | 10, "Virtual supervisor external interrupt"},
    {RISCV64_INTERRUPT | 12, "Supervisor guest external interrupt"},
    {RISCV64_INTERRUPT | 13, "Counter-overflow interrupt"},
};

/* Returns the id of kvm_exit r's key: its reason's number, with SECOND_SYMBOLS if that applies. */
static uint64_t exit_key(const struct record *r)
{
    uint64_t reason;

    if (has_field(r, ESR_EC)) {
        reason = value_of(r, RET);
        return (reason & 0xff) == ARM64_TRAP ? value_of(r, ESR_EC) | SECOND_SYMBOLS
                                             : reason & ~(uint64_t)ARM64_SERROR;
    }
    if (has_field(r, ISA)) {
        reason = value_of(r, EXIT_REASON);
        return value_of(r, ISA) == 1 ? reason & 0xffff : reason | SECOND_SYMBOLS;
    }
    /* On another architecture, the field that print fmt has names for. */
    return value_of(r, has_field(r, SCAUSE) ? SCAUSE : SYMBOL) & ~SECOND_SYMBOLS;
}

/* Puts the name of the exit reason with key id in buf, or its number if it has none. */
static void name_reason(uint64_t id, char *buf, size_t size)
{
    size_t second = (id & SECOND_SYMBOLS) != 0;
    uint64_t value = id & ~SECOND_SYMBOLS;
    size_t i = symbol_index(second, value);

    if (i < symbols[second].n && symbols[second].list[i].value == value)
        snprintf(buf, size, "%s", symbols[second].list[i].name);
    else
        snprintf(buf, size, "0x%" PRIx64, value);
}

static void key_exit(struct thread *t, struct stream *s)
{
    count_key(t->tally, exit_key(&s->next), s);
}

/*
 * kvm_vmgexit_enter: the guest tells a reason, which is any number, for the VMGEXIT that is open:
 * that one counts by this reason, unless it has been reported.
 */
static void key_vmgexit(struct thread *t, struct stream *s)
{
    struct tally *y = t->tally;
    uint64_t id = value_of(&s->next, EXIT_REASON) | SECOND_SYMBOLS;

    if (y->since == 0 || y->open != (SVM_VMGEXIT | SECOND_SYMBOLS))
        return;
    struct key *k = key_of(y, y->open);
    bool here = k->count != 0;
    k->count -= here;
    if (k->count == 0 && k->timed == 0) {
        y->nkeys--;
        memmove(k, k + 1, (size_t)(y->keys + y->nkeys - k) * sizeof(*k));
    }
    if (here) {
        y->open = id < (SECOND_SYMBOLS | UINT32_MAX) ? id : OTHER_KEYS;
        key_of(y, y->open)->count++;
    }
}

static void key_user_exit(struct thread *t, struct stream *s)
{
    if (is_user_exit(t, &s->next))
        count_key(t->tally, value_of(&s->next, REASON), s);
}

/* Puts the address, or the MSR, of the key id in buf, with R if it was read, or W if written. */
static void name_access(uint64_t id, char *buf, size_t size)
{
    snprintf(buf, size, "0x%" PRIx64 ":%s", id >> 1, (id & 1) != 0 ? "W" : "R");
}

/* kvm_exit, for -e mmio: opens an exit, which is timed if a kvm_mmio tells that it is a read. */
static void begin_exit(struct thread *t, struct stream *s)
{
    start_timing(t->tally, UNKNOWN_KEY, s);
}

/* kvm_mmio: a write lasts until kvm_entry; a read has lasted since kvm_exit. */
static void key_mmio(struct thread *t, struct stream *s)
{
    uint64_t kind = value_of(&s->next, TYPE);
    uint64_t id = value_of(&s->next, GPA) << 1 | (kind == MMIO_WRITE);

    if (kind == MMIO_WRITE) {
        count_key(t->tally, id, s);
    } else if (kind == MMIO_READ) {
        key_of(t->tally, id)->count++;
        if (t->tally->open == UNKNOWN_KEY)
            stop_timing(t->tally, id, s);
    }
}

/* Puts the port of the port I/O key id in buf, with the direction. */
static void name_port(uint64_t id, char *buf, size_t size)
{
    snprintf(buf, size, "0x%" PRIx64 ":%s", id >> 1, (id & 1) != 0 ? "out" : "in");
}

static void key_pio(struct thread *t, struct stream *s)
{
    uint64_t port = value_of(&s->next, PORT);

    count_key(t->tally, port << 1 | (value_of(&s->next, RW) != 0), s);
}

/* kvm_msr, which follows the access: what KVM did for that before is not in the time. */
static void key_msr(struct thread *t, struct stream *s)
{
    uint64_t msr = value_of(&s->next, ECX);

    count_key(t->tally, msr << 1 | (value_of(&s->next, WRITE) != 0), s);
}

/* Puts the number that is the key id in buf. */
static void name_number(uint64_t id, char *buf, size_t size)
{
    snprintf(buf, size, "0x%" PRIx64, id);
}

static void key_cpuid(struct thread *t, struct stream *s)
{
    count_key(t->tally, value_of(&s->next, FUNCTION), s);
}

/* kvm_hypercall: nr is any number that the guest chose, but KVM has none of more than 32 bits. */
static void key_hypercall(struct thread *t, struct stream *s)
{
    uint64_t number = value_of(&s->next, NR);

    count_key(t->tally, number > UINT32_MAX ? OTHER_KEYS : number, s);
}

/* kvm_entry: the guest goes on, so what is open ends, untimed if its key is not known. */
static void end_by_entry(struct thread *t, struct stream *s)
{
    if (t->tally->open != UNKNOWN_KEY)
        stop_timing(t->tally, t->tally->open, s);
    t->tally->since = 0;
}

/*
 * kvm_fpu, for kvm_pvm, which has no kvm_entry: if it loads the guest's FPU state, user space has
 * let the guest go on, and the open exit ends.
 */
static void end_by_fpu_load(struct thread *t, struct stream *s)
{
    if (value_of(&s->next, LOAD) != 0)
        stop_timing(t->tally, t->tally->open, s);
}

/* The tables, by enum table. */
static const struct {
    const char *name;    /* the operand of -e, and the keys' header */
    const char *meaning; /* what a key is, for -h */
    void (*name_key)(uint64_t id, char *buf, size_t size); /* puts a key in buf for its row */
} tables[NTABLES] = {
    [USUAL] = {"", NULL, NULL},
    [VMEXIT] = {"vmexit", "the reason of the exit, as the kernel calls it", name_reason},
    [MMIO] = {"mmio", "the guest physical address, and R or W", name_access},
    [IOPORT] = {"ioport", "the port, and in or out", name_port},
    [MSR] = {"msr", "the model specific register, and R or W", name_access},
    [CPUID] = {"cpuid", "the leaf that CPUID was asked for", name_number},
    [HYPERCALL] = {"hypercall", "the number of the hypercall", name_number},
};

/*
 * The events: which there are, which are wanted, and how each of them reaches the function that
 * counts it.
 */

/* The indices of events[]; choose_events() picks those that are wanted. */
enum event {
    KVM_EXIT,
    KVM_ENTRY,
    KVM_USERSPACE_EXIT,
    KVM_INJ_VIRQ,
    KVM_EMULATE_INSN,
    KVM_MMIO,
    KVM_VMGEXIT_ENTER,
    KVM_PIO,
    KVM_MSR,
    KVM_CPUID,
    KVM_HYPERCALL,
    KVM_FPU,
    KVM_GET_TIMER_MAP,
    TASK_NEWTASK,
    NEVENTS
};

static struct event_type events[NEVENTS] = {
    [KVM_EXIT] = {.name = "kvm/kvm_exit",
        .uses = {[USUAL] = {HARDWARE_HOSTS, HARDWARE_HOSTS, count_exit},
            [VMEXIT] = {HARDWARE_HOSTS, HARDWARE_HOSTS, key_exit},
            [MMIO] = {HARDWARE_HOSTS, 0, begin_exit}}},
    [KVM_ENTRY] = {.name = "kvm/kvm_entry",
        .uses = {[USUAL] = {HARDWARE_HOSTS, 0, NULL},
            [VMEXIT] = {HARDWARE_HOSTS, 0, end_by_entry},
            [MMIO] = {HARDWARE_HOSTS, 0, end_by_entry},
            [IOPORT] = {HARDWARE_HOSTS, 0, end_by_entry},
            [MSR] = {HARDWARE_HOSTS, 0, end_by_entry},
            [CPUID] = {HARDWARE_HOSTS, 0, end_by_entry},
            [HYPERCALL] = {HARDWARE_HOSTS, 0, end_by_entry}}},
    [KVM_USERSPACE_EXIT] = {.name = "kvm/kvm_userspace_exit",
        .uses = {[USUAL] = {USER_HOSTS, USER_HOSTS, count_user_exit},
            [VMEXIT] = {SOFTWARE_HOST, SOFTWARE_HOST, key_user_exit}}},
    [KVM_INJ_VIRQ] = {.name = "kvm/kvm_inj_virq",
        .counter = IRQS,
        .uses = {[USUAL] = {ALL_HOSTS, X86_HOST | SOFTWARE_HOST, count_event},
            [VMEXIT] = {SOFTWARE_HOST, 0, count_event}}},
    [KVM_EMULATE_INSN] = {.name = "kvm/kvm_emulate_insn",
        .counter = EMUL,
        .uses = {[USUAL] = {ALL_HOSTS, X86_HOST | SOFTWARE_HOST, count_event},
            [VMEXIT] = {SOFTWARE_HOST, 0, count_event}}},
    [KVM_MMIO] = {.name = "kvm/kvm_mmio",
        .uses = {[USUAL] = {HARDWARE_HOSTS, X86_HOST | ARM64_HOST, count_mmio},
            [MMIO] = {ALL_HOSTS & ~RISCV64_HOST, ALL_HOSTS, key_mmio}}},
    [KVM_VMGEXIT_ENTER] = {.name = "kvm/kvm_vmgexit_enter",
        .uses = {[USUAL] = {X86_HOST, 0, count_vmgexit}, [VMEXIT] = {X86_HOST, 0, key_vmgexit}}},
    [KVM_PIO] = {.name = "kvm/kvm_pio", .uses = {[IOPORT] = {ALL_HOSTS, ALL_HOSTS, key_pio}}},
    [KVM_MSR] = {.name = "kvm/kvm_msr", .uses = {[MSR] = {ALL_HOSTS, ALL_HOSTS, key_msr}}},
    [KVM_CPUID] = {.name = "kvm/kvm_cpuid", .uses = {[CPUID] = {ALL_HOSTS, ALL_HOSTS, key_cpuid}}},
    [KVM_HYPERCALL] = {.name = "kvm/kvm_hypercall",
        .uses = {[HYPERCALL] = {ALL_HOSTS, ALL_HOSTS, key_hypercall}}},
    [KVM_FPU] = {.name = "kvm/kvm_fpu", .uses = {[VMEXIT] = {SOFTWARE_HOST, 0, end_by_fpu_load}}},
    [KVM_GET_TIMER_MAP] = {.name = "kvm/kvm_get_timer_map", /* taken by note_load() */
        .uses = {[USUAL] = {ARM64_HOST, 0, NULL},
            [VMEXIT] = {ARM64_HOST, 0, NULL},
            [MMIO] = {ARM64_HOST, 0, NULL}}},
    [TASK_NEWTASK] = {.name = "task/task_newtask"}, /* of every table and host, for keep_birth() */
};

/* The wanted event of each common_type, or NULL. */
static const struct event_type *event_of_id[UINT16_MAX + 1];

/* Returns whether this host, reading.host, has all events that a table needs. */
static bool can_have(enum table table)
{
    bool can = true;

    for (int i = 0; i < NEVENTS; i++) {
        const struct use *use = &events[i].uses[table];
        bool needed = (use->needed & reading.host) != 0;
        can &= !needed || (events[i].id != 0 && (use->hosts & reading.host) != 0);
    }
    return can;
}

/* Does what choose_events() does for one table, and returns the same. */
static const char *choose_events_of(enum table table)
{
    const struct field *exit = events[KVM_EXIT].fields;

    for (int i = 0; i < NEVENTS; i++) {
        struct event_type *type = &events[i];
        const struct use *use = &type->uses[table];
        bool needed = (use->needed & reading.host) != 0;
        bool used = type->id != 0 && ((use->hosts & reading.host) != 0 || i == TASK_NEWTASK);
        /* kvm_exit has no vcpu_id on arm64, and before Linux 5.10; kvm_entry has on x86. */
        if ((use->hosts & reading.host) != 0 && use->count == NULL)
            used &= exit[VCPU_ID].size == 0 && type->fields[VCPU_ID].size != 0;
        if (needed && (use->hosts & reading.host) == 0)
            fail("%s: never fires on this architecture (leave -e %s out)", type->name,
                tables[table].name);
        if (needed && !used)
            return type->name;
        type->wanted |= used;
        if (!used || table != options.table)
            continue;
        type->only_counts = use->count == count_event && type->fields[VCPU_ID].size == 0;
        event_of_id[type->id] = type;
        if (needed)
            parse_symbols(type->print);
    }
    return NULL;
}

/*
 * Decides which of the events whose formats were parsed are wanted.  software tells that the host
 * has only the software backend.  Sets reading.host, event_of_id and, for -e vmexit, symbols.
 * Returns NULL, or the name of an event that is needed but not there; ends kvmstat if one never
 * fires.
 */
static const char *choose_events(bool software)
{
    const struct field *exit = events[KVM_EXIT].fields;
    const enum host_kind kind = software                 ? SOFTWARE_HOST
                                : exit[ISA].size != 0    ? X86_HOST
                                : exit[ESR_EC].size != 0 ? ARM64_HOST
                                : exit[SCAUSE].size != 0 ? RISCV64_HOST
                                                         : OTHER_HOST;

    reading.host = kind;
    if (kind == RISCV64_HOST) {
        for (size_t i = 0; i < sizeof(riscv64_causes) / sizeof(riscv64_causes[0]); i++)
            add_symbol(0, &riscv64_causes[i]);
    }
    for (int i = 0; i < NTABLES; i++) {
        const char *missed = NULL;
        bool more = (options.more >> i & 1) != 0 && (!options.all || can_have((enum table)i));
        if (more || (enum table)i == options.table)
            missed = choose_events_of((enum table)i);
        if (missed != NULL)
            return missed;
    }
    return NULL;
}

/*
 * With -e vmexit, ends kvmstat if exit_key() finds no reason in the kvm_exit of object, which the
 * message names: a recording, or the event.  choose_events() was called before.
 */
static void check_reasons(const char *object)
{
    if (options.table == VMEXIT && reading.host == OTHER_HOST &&
        events[KVM_EXIT].fields[SYMBOL].size == 0)
        fail("%s: the reasons of its architecture are not known (leave -e vmexit out)", object);
}

/* Returns the common_type of r; 0 if r is too short for the fields that all events have. */
static int event_id(const struct record *r)
{
    return r->size < COMMON_SIZE ? 0 : (int)load(r->data, 2);
}

/*
 * Keeps what task_newtask r, of thread tid, tells: whose thread was started, or that a process was
 * started; and that whatever had the new id before has ended.
 */
static void keep_birth(const struct record *r, int tid)
{
    int child = (int)value_of(r, PID);
    bool is_thread = (value_of(r, CLONE_FLAGS) & CLONE_THREAD) != 0;

    if (child <= 0)
        return;
    int pid = is_thread ? pid_of(tid, r->time) : child;
    /* If pid is not known, procfs may know the child. */
    *birth_of(child) = (struct birth){pid != 0 ? child : 0, pid, true};
    source->end_former(child, pid, r->time);
}

/* Counts s->next, or has keep_birth() take it, if it is wanted. */
static void count(struct stream *s)
{
    struct record *r = &s->next;

    r->type = event_of_id[event_id(r)];
    if (r->type == NULL)
        return;
    int tid = (int)load(r->data + COMMON_PID_AT, 4);
    if (tid <= 0)
        return;
    struct thread *t = s->thread;
    bool known = t != NULL && t->tid == tid && t->guest != NULL && !t->guest->former;
    /* For speed: most events only count.  Such a one is not too early, for t had one before it. */
    if (known && r->type->only_counts && t->loaded == 0) {
        t->active = t->ran = true;
        count_event(t, s);
        return;
    }
    if (r->type == &events[TASK_NEWTASK]) {
        keep_birth(r, tid);
        return;
    }
    if (r->time < reading.start)
        return;
    if (!known)
        t = s->thread = source->find_thread(tid, r->time);
    if (t == NULL) {
        world.unknown++;
        return;
    }
    if (r->type == &events[KVM_GET_TIMER_MAP]) {
        note_load(t, (long)(uint32_t)value_of(r, VCPU_ID));
        return;
    }
    bool first = !t->ran;
    t->active = t->ran = true;
    if (r->type == &events[KVM_EXIT] || r->type == &events[KVM_ENTRY])
        settle_exit(t); /* before note_vcpu(), while t->vcpu is the vCPU that exited */
    if (has_field(r, VCPU_ID))
        note_vcpu(t, (long)(uint32_t)value_of(r, VCPU_ID));
    else if (t->loaded != 0)
        note_vcpu(t, t->loaded - 1);
    if (first) {
        t->since = r->time;
        t->guest->stale = true; /* it may run a vCPU that was not there before, or another one's */
    }
    if (r->type->uses[options.table].count != NULL)
        r->type->uses[options.table].count(t, s);
}

/*
 * Merging: takes the events of all CPUs from their sub-buffers, in the order of their stamps.
 */

/* Opens the next sub-buffer of s.  Returns false if there is none now. */
static bool next_subbuf(struct stream *s)
{
    bool missed = s->subbuf.missed; /* the one before may have had no event to note it at */

    if (s->used == s->nbytes && !source->read_pages(s))
        return false;
    size_t size = s->nbytes - s->used < reading.page.size ? s->nbytes - s->used : reading.page.size;
    if (!subbuf_open(&s->subbuf, s->pages + s->used, size, &reading.page)) {
        source->refuse(s, "a sub-buffer that is larger than it can be");
        return false;
    }
    s->used += size;
    if (s->subbuf.missed)
        source->add_lost(s);
    s->subbuf.missed |= missed;
    return true;
}

/*
 * Goes on with the next sub-buffers of s after subbuf_next() gave found, which is 0 or -1: takes
 * their first event to s->next.  Returns false if there is none now.
 */
static bool fill_from_next_subbuf(struct stream *s, int found)
{
    while (found == 0 && next_subbuf(s))
        found = subbuf_next(&s->subbuf, &s->next);
    if (found == 0)
        return false;
    if (found < 0 || s->next.time > INT64_MAX) {
        source->refuse(
            s, found < 0 ? "a sub-buffer that makes no sense" : "a time stamp that cannot be");
        return false;
    }
    if (s->subbuf.missed) {
        s->gap = s->next.time;
        reading.gap = s->gap > reading.gap ? s->gap : reading.gap;
        s->subbuf.missed = false;
    }
    return true;
}

/* Takes the next event of s to s->next.  Returns false if there is none now. */
static inline bool fill(struct stream *s)
{
    int found = subbuf_next(&s->subbuf, &s->next);

    return s->has_next = found > 0 || fill_from_next_subbuf(s, found);
}

/*
 * Counts the next event of s, and those behind it that are stamped before limit.  Returns false if
 * s has no further event now.
 */
static bool count_turn(struct stream *s, uint64_t limit)
{
    do
        count(s);
    while (fill(s) && s->next.time < limit);
    return s->has_next;
}

/* Moves heap[i] down to where it belongs in the heap of n streams, earliest next event first. */
static void sift_down(struct stream **heap, size_t n, size_t i)
{
    struct stream *s = heap[i];
    size_t child;

    while ((child = 2 * i + 1) < n) {
        if (child + 1 < n && heap[child + 1]->next.time < heap[child]->next.time)
            child++;
        if (s->next.time <= heap[child]->next.time)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = s;
}

/* Takes the stream with the earliest next event from the heap of *n; NULL if it is empty. */
static struct stream *take_first(struct stream **heap, size_t *n)
{
    if (*n == 0)
        return NULL;
    struct stream *first = heap[0];
    heap[0] = heap[--*n];
    if (*n > 0)
        sift_down(heap, *n, 0);
    return first;
}

/*
 * Counts all events stamped before until, which is not in the future, in the order of their stamps.
 * An event that a CPU is still writing is counted by the next call.
 */
static void drain(uint64_t until)
{
    struct stream **heap = reading.heap;
    size_t n = 0;

    for (size_t i = 0; i < reading.nstreams; i++) {
        struct stream *s = &reading.streams[i];
        if (s->has_next || (s->ready && fill(s)))
            heap[n++] = s;
    }
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i);
    struct stream *s = take_first(heap, &n);
    while (s != NULL && s->next.time < until) {
        /* The stream with the earliest event goes on until another stream's next event is due. */
        if (!count_turn(s, n > 0 && heap[0]->next.time < until ? heap[0]->next.time : until)) {
            s = take_first(heap, &n);
        } else if (n > 0) {
            struct stream *first = heap[0];
            heap[0] = s;
            if (n > 1) /* for speed: of two CPUs, one is in the heap, and in order */
                sift_down(heap, n, 0);
            s = first;
        }
    }
    reading.drained = until;
}

/*
 * This host.
 *
 * What procfs and debugfs have of a guest vanishes when the guest ends: that is no error.
 */

#define TRACEFS_MAGIC 0x74726163    /* f_type of statfs(2); musl-gcc finds no linux/magic.h */
#define DEBUGFS_MAGIC 0x64626720    /* f_type of debugfs */
#define SYSFS_MAGIC 0x62656572      /* f_type of sysfs */
#define PROCFS_MAGIC 0x9fa0         /* f_type of procfs */
#define INITIAL_PID_NS 0xeffffffcu  /* inode of the host's /proc/self/ns/pid: linux/proc_ns.h */
#define INITIAL_USER_NS 0xeffffffdu /* inode of the host's /proc/self/ns/user: the same header */
#define MAX_PIDS (1u << 22)         /* process ids that the kernel can have (PID_MAX_LIMIT) */
#define ATTENTIVE (NSEC / 10)       /* nanoseconds of frequent looks after a VM was made */
#define FIRST_LOOK (NSEC / 2)       /* nanoseconds of the observer's time for the first look */
#define MAX_LOOK (NSEC / 4)         /* the same for another one, at most */
#define LOOK_SHARE 4                /* a look is followed by a rest of this many times that */

/* A VM that has a directory in debugfs. */
struct vm {
    ino_t inode;         /* inode of the directory; a new VM with the same name has another inode */
    nlink_t links;       /* link count of the directory; it changes when a vCPU is added */
    char name[32];       /* name of the directory: PID-FD, see find_owner() */
    struct guest *guest; /* the process that made the VM; NULL if that cannot be told */
    bool owner_sure;     /* file descriptor FD of that process is a VM */
    int fd;              /* FD */
    struct vm *next;     /* settle_owners(): the next one of the same guest */
    bool searched;       /* a search of all processes for its owner was asked for */
    long *vcpus;         /* vCPU numbers, as the directory has them */
    size_t nvcpus;       /* number of these; 0 on arm64 and riscv64, which tell no vCPUs there */
};

/* What kvmstat sees of this host, and its looks at the host's processes. */
static struct {
    int proc;       /* file descriptor of the root of procfs: of a mount of kvmstat's own, and of
                       another one in the observer, which alone looks at other processes */
    int debugfs;    /* file descriptor of debugfs's directory kvm; -1: none */
    int uevents;    /* netlink socket on which the kernel announces new VMs; -1: none */
    struct vm *vms; /* VMs that have a directory in debugfs, by inode */
    size_t nvms;    /* number of these */
    struct place search;      /* how far the search of all processes has come */
    bool search_again;        /* another search is wanted, which begins at the first process */
    uint64_t left;            /* nanoseconds that the observer may take for the current look */
    uint64_t next_look;       /* no look before this CLOCK_MONOTONIC time, except for a report */
    uint64_t attentive_until; /* buffers are read often until then, for a VM was just made */
    bool cut;                 /* the look had to end before it had seen everything */
    bool changed;             /* descriptors were read since settle_owners() */
    int shortage; /* errno of the last failure for lack of something on this host; or 0 */
} view = {.proc = -1, .debugfs = -1, .uevents = -1, .search = {.pid = -1}, .left = FIRST_LOOK};

/* -m: a bit for each process id that has been a guest's. */
static uint8_t former_pids[MAX_PIDS / 8];

/* Indexes in trace.polls. */
enum { POLL_UEVENTS, POLL_CHANGES, POLL_STDOUT, FIRST_STREAM };

/* A directory of the instance that inotify watches. */
struct watch {
    int wd;  /* the watch descriptor by which inotify names the directory */
    int dir; /* file descriptor of one under events/; else -1.  If it were closed, the kernel might
                (since Linux 6.6) make the directory anew, and that one is not watched */
    char path[64]; /* its path in the instance, with a slash at the end; empty for the topmost */
};

/* The tracefs instance.  A file descriptor that is -1 is not open. */
static struct {
    int instances;         /* file descriptor of tracefs's directory of all instances */
    char name[32];         /* name of this kvmstat's instance in that directory */
    int dir;               /* file descriptor of the instance's directory */
    int hold;              /* its tracing_on, open: nobody can remove the instance meanwhile */
    int janitor_pipe;      /* write end of the pipe whose closing starts the janitor's work */
    pid_t janitor;         /* process id of the janitor; 0: there is none */
    struct pollfd *polls;  /* view.uevents, inotify, stdout, and then one for each stream */
    int inotify;           /* tells what others do in the instance */
    struct watch *watches; /* the instance's directories that inotify watches */
    size_t nwatches;       /* number of these */
    struct text touched;   /* names of files changed by others since the last report */
    size_t ntouched;       /* number of these, also of those left out of touched */
    bool changed;          /* others changed something that mend_instance() has to set right */
    bool quiet;            /* no buffer had anything when poll_streams() asked last */
} trace = {.instances = -1, .dir = -1, .hold = -1, .janitor_pipe = -1, .inotify = -1};

/* Whether this process is not kvmstat itself, but its observer. */
static bool is_observer;

/*
 * Judges errno after an access to procfs, debugfs or the instance has failed.  That a guest, and so
 * its entry, is gone, or that something may not be looked at, is harmless.  After any other error,
 * for instance because the host is short of memory or file descriptors, guests may be missing:
 * before tracing has begun, such an error ends kvmstat; later, view.shortage keeps it, and kvmstat
 * warns of it before the next report.  The observer's are kept for its answer.
 */
static void check_shortage(void)
{
    /* EIO: what debugfs returns for a file whose VM is gone. */
    static const int harmless[] = {0, ENOENT, ENOTDIR, ESRCH, EINVAL, EACCES, EPERM, EIO};

    for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++) {
        if (errno == harmless[i])
            return;
    }
    if (reading.start == 0 && !is_observer)
        fail_errno("guests");
    view.shortage = errno;
}

/* Calls read_file(), and check_shortage() if that fails. */
static ssize_t read_host_file(int dir, const char *path, char *buf, size_t size)
{
    ssize_t n = read_file(dir, path, buf, size);

    if (n < 0)
        check_shortage();
    return n;
}

/* Calls open_dir(), and check_shortage() if that fails. */
static DIR *open_host_dir(int dir, const char *path)
{
    DIR *d = open_dir(dir, path);

    if (d == NULL)
        check_shortage();
    return d;
}

/* Calls readdir(), and check_shortage() if that fails.  Returns NULL if d is NULL. */
static struct dirent *next_host_entry(DIR *d)
{
    struct dirent *e = NULL;

    errno = 0;
    if (d != NULL && (e = readdir(d)) == NULL)
        check_shortage();
    return e;
}

/*
 * Closes all file descriptors of this process except these n.  Returns false with errno set if
 * their list cannot be read.
 */
static bool close_others(const int *kept, size_t n)
{
    DIR *d = open_dir(view.proc, "self/fd");
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        int fd = parse_int(e->d_name);
        bool keep = fd < 0 || fd == dirfd(d);
        for (size_t i = 0; i < n; i++)
            keep |= fd == kept[i];
        if (!keep)
            close(fd);
    }
    return d != NULL && closedir(d) == 0;
}

/*
 * This host: its file systems.  What cannot be had, and has no other way, ends kvmstat by fail().
 */

/*
 * Returns an O_PATH file descriptor of the directory path, or -1 with errno set if no file system
 * with the given magic number is mounted there.
 */
static int open_mounted(const char *path, long magic)
{
    struct statfs fs;
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && (fstatfs(fd, &fs) != 0 || (long)fs.f_type != magic)) {
        close(fd);
        fd = -1;
        errno = ENOENT;
    }
    return fd;
}

/*
 * Returns a file descriptor of the root directory of a file system of the given type, or -1 with
 * errno set.  Its mount is kvmstat's own, is attached nowhere, and goes when the file descriptor is
 * closed.  Needs Linux 5.2.
 */
static int open_detached(const char *type)
{
    enum { OPEN_CLOEXEC = 1, CMD_CREATE = 6, MOUNT_CLOEXEC = 1 }; /* linux/mount.h */
    int context = (int)syscall(SYS_fsopen, type, OPEN_CLOEXEC), fd = -1;

    if (context < 0)
        return -1;
    if (syscall(SYS_fsconfig, context, CMD_CREATE, NULL, NULL, 0) == 0)
        fd = (int)syscall(SYS_fsmount, context, MOUNT_CLOEXEC, 0);
    int error = errno;
    close(context);
    errno = error;
    return fd;
}

/*
 * Returns a file descriptor of the root directory of a file system of the given type.  Prefers a
 * mount of kvmstat's own, since the one at path, if any, may be read-only, may hide something, or
 * may be that of another name space.  Where such mounts are not allowed, takes the one at path.
 * Returns -1 if that fails, too.  Sets errno to why there is no mount of kvmstat's own.
 */
static int open_root(const char *type, const char *path, long magic)
{
    int fd = open_detached(type), error = errno;

    if (fd < 0)
        fd = open_mounted(path, magic);
    errno = error;
    return fd;
}

/*
 * Opens procfs, as view.proc; ends kvmstat if that is not the host's.  Ids in events are those of
 * the initial PID name space, and capabilities in another user name space give no right to anything
 * that kvmstat looks at.
 */
static void open_procfs(void)
{
    char pid[16], self[16];
    struct stat st;
    ssize_t size;

    if ((view.proc = open_root("proc", "/proc", PROCFS_MAGIC)) < 0)
        fail("/proc: not procfs (mount it: mount -t proc nodev /proc)");
    if (fstatat(view.proc, "self/ns/user", &st, 0) == 0 && st.st_ino != INITIAL_USER_NS)
        fail("user name space: not the host's (%s)", have_rights);
    if (fstatat(view.proc, "self/ns/pid", &st, 0) == 0 && st.st_ino != INITIAL_PID_NS)
        fail("PID name space: not the host's (%s)", have_rights);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    size = readlinkat(view.proc, "self", self, sizeof(self));
    if (size != (ssize_t)strlen(pid) || memcmp(self, pid, strlen(pid)) != 0)
        fail("/proc: of another PID name space (mount the host's: mount -t proc nodev /proc)");
}

/* Sets clock_offset, which stays 0 if the kernel has no time name spaces. */
static void find_clock_offset(void)
{
    static const char key[] = "monotonic";
    char text[256], *s;

    if (read_file(view.proc, "self/timens_offsets", text, sizeof(text)) > 0 &&
        (s = strstr(text, key)) != NULL) {
        long long seconds = strtoll(s + strlen(key), &s, 10);
        clock_offset = (uint64_t)seconds * NSEC + (uint64_t)strtoll(s, NULL, 10);
    }
}

/* source.epoch_offset: returns how far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC now. */
static uint64_t host_epoch_offset(uint64_t time)
{
    static uint64_t offset, last;

    if (time == last) /* -w has saved what the report is about to show */
        return offset;
    last = time;
    uint64_t difference = now(CLOCK_REALTIME) - now(CLOCK_MONOTONIC);
    /*
     * The clocks are read one after the other.  Changes of up to a millisecond, which may come from
     * that, are ignored, so that the times in reports do not wobble.
     */
    if (difference - offset + NSEC / 1000 > NSEC / 500)
        offset = difference - difference % 1000;
    return offset;
}

/* Where tracefs is mounted, if it is. */
static const char tracefs_path[] = "/sys/kernel/tracing";

/* Returns a file descriptor of the root of tracefs, or -1 with errno set. */
static int find_tracefs(void)
{
    int fd = open_root("tracefs", tracefs_path, TRACEFS_MAGIC);

    if (fd < 0 && errno == ENOSYS) {
        /* Before Linux 5.2, many systems mount only debugfs, which has tracefs in it. */
        fd = open_mounted("/sys/kernel/debug/tracing", TRACEFS_MAGIC);
        errno = ENOSYS;
    }
    return fd;
}

/* The same, but ends kvmstat if that fails or there are no events of kvm. */
static int open_tracefs(void)
{
    int fd = find_tracefs();

    if (fd < 0)
        fail_errno(tracefs_path);
    if (faccessat(fd, "events/kvm", F_OK, 0) != 0) {
        if (errno == ENOENT)
            fail("kvm: not loaded (%s)", load_kvm);
        fail_errno(tracefs_path);
    }
    return fd;
}

/* Opens debugfs's directory of VMs, as view.debugfs, which stays -1 if that fails. */
static void open_debugfs(void)
{
    int debugfs = open_root("debugfs", "/sys/kernel/debug", DEBUGFS_MAGIC);

    if (debugfs < 0)
        return;
    view.debugfs = openat(debugfs, "kvm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(debugfs);
}

/* Opens view.uevents, for the kernel to announce new VMs; it stays -1 if that fails. */
static void open_uevents(void)
{
    enum { KOBJECT_UEVENT = 15 }; /* linux/netlink.h */
    struct {
        uint16_t family; /* AF_NETLINK */
        uint16_t pad;    /* 0 */
        uint32_t port;   /* 0: any */
        uint32_t groups; /* multicast groups, as bits; 1: the kernel's own events */
    } address = {.family = AF_NETLINK, .groups = 1};
    int size = 1 << 20; /* bytes that may wait in the socket */

    view.uevents = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, KOBJECT_UEVENT);
    if (view.uevents < 0)
        return;
    setsockopt(view.uevents, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    if (bind(view.uevents, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(view.uevents);
        view.uevents = -1;
    }
}

/*
 * This host: the observer.  Whoever looks at another process may have to wait for it as long as its
 * owner likes: procfs and kcmp(2) take locks that a process holds while a file system of its
 * owner's does not answer.  So kvmstat itself never does that.  A child process, the observer,
 * looks, and answers one question at a time with plain values.  Both are in here: first what the
 * observer does, then how kvmstat asks it.  The observer keeps nothing but which open files it has
 * met; if it is late because it sleeps in the kernel, the janitor replaces it.
 */

#define PATIENCE (NSEC / 40)         /* nanoseconds without an answer, until the janitor is asked */
#define LEAST_PATIENCE (NSEC / 1000) /* nanoseconds; with many processes that gave none before */
#define MAX_PATIENCE NSEC       /* nanoseconds that an observer which waits for a CPU may take */
#define LEAST_TIME (NSEC / 250) /* nanoseconds of CPU time that an answer may take at least */
#define AGAIN (UINT64_C(10) * NSEC)               /* nanoseconds from no answer to the next try */
#define MAX_ASKED 1024u                           /* ids in a question */
#define MAX_TOLD 1024u                            /* descriptors in an answer */
#define MAX_COMMAND (6u << 20)                    /* bytes; the longest command line of execve(2) */
enum { NO_ID = -1, MACHINE = -2, NAMELESS = -3 }; /* in place of a vCPU's number */

/* What can be asked, of a process or thread. */
enum inquiry {
    ASK_TASK,    /* of which process a thread is, and whether a descriptor of it is a VM */
    ASK_COMM,    /* a thread's name */
    ASK_NAME,    /* the name of a process's guest */
    ASK_FILES,   /* which of a process's descriptors are KVM's, and its threads */
    ASK_HOLDERS, /* which other processes have a VM or vCPU */
    ASK_CALL,    /* the vCPU that a thread runs, by the system call that it is in */
    ASK_THREADS, /* a process's threads, and the vCPU's number in the name of each */
    ASK_TIMES    /* how long some threads ran and waited (-c) */
};

/* What is asked. */
struct question {
    uint64_t serial;    /* the number of the question, and of its answer */
    enum inquiry kind;  /* what is asked */
    int id;             /* the process or thread; ASK_HOLDERS: 0 */
    int fd;             /* ASK_TASK: that descriptor; ASK_THREADS: 1: names are to be looked at */
    uint64_t started;   /* ASK_FILES: when that process started; 0: at any time */
    bool anew;          /* ASK_FILES: also if another process shares the descriptors */
    struct place at;    /* where to go on */
    uint64_t limit;     /* nanoseconds of CPU time that the answer may take */
    size_t nids;        /* number of ids */
    int ids[MAX_ASKED]; /* ASK_TIMES: the threads; ASK_HOLDERS: processes to be left out */
};

/* A file descriptor of KVM's, or a thread. */
struct descriptor {
    int tid;   /* a thread that has it */
    int fd;    /* its number; -1: only a thread is told */
    int id;    /* the vCPU's number, MACHINE or NAMELESS; of a thread that in its name; or NO_ID */
    bool lent; /* settle_owners(): the open file is another process's */
    uint64_t number; /* of the open file: the same in all processes that have it; 0: not known */
};

/* What stands for a thread's times: they are not known, or the thread has ended. */
#define NO_TIMES UINT64_MAX
#define ENDED_TIMES (NO_TIMES - 1)

/* What is answered. */
struct answer {
    uint64_t serial; /* the question's number */
    int error;    /* errno if that could not be looked at; ESRCH also if there is no such thing */
    int pid;      /* ASK_TASK: the process; ASK_FILES: one that shares all its descriptors, or 0;
                     ASK_CALL: the vCPU; ETIMEDOUT: the process that it waited for */
    bool machine; /* ASK_TASK: the descriptor is a VM */
    bool cut;     /* it took as long as it may */
    uint64_t started; /* ASK_TASK: when it started, in clock ticks since boot */
    uint64_t used;    /* nanoseconds of CPU time that the answer took */
    struct place at;  /* where to go on; .thread is -1 if there is nothing more */
    size_t size;      /* bytes of what follows, which is as long as need be */
    union {
        struct descriptor files[MAX_TOLD];  /* ASK_FILES, ASK_HOLDERS, ASK_THREADS */
        uint64_t times[MAX_ASKED][NSHARES]; /* ASK_TIMES: see read_times() */
        char text[MAX_NAME + 1];            /* ASK_COMM, ASK_NAME */
    };
};

/* What the observer is looking at, in memory that all processes of kvmstat share. */
struct looking {
    uint64_t serial; /* the question's number */
    int at;          /* the process or thread that it looks at; 0: at none */
    unsigned steps;  /* number of descriptors and threads that it looked at for the question */
};

/* A process that kept an observer waiting. */
struct hung {
    int pid;        /* a process, or the thread of one */
    uint64_t until; /* it is asked about again after this CLOCK_MONOTONIC time */
};

/* kvmstat's side of the observer. */
static struct {
    int fd;                           /* the socket to the observer; -1: there is none */
    volatile struct looking *looking; /* what the observer does */
    uint64_t serial;                  /* number of the last question */
    struct answer answer;             /* the answer to it */
    size_t nlate;                     /* number of observers that were replaced in this interval */
    struct hung *hung;                /* processes that are left out for a while */
    size_t nhung;                     /* number of these */
    int left_out;                     /* one that was left out since the last report; or 0 ... */
    size_t nleft_out;                 /* ... and the number of those that were found since */
} observer = {.fd = -1};

/* Returns an O_PATH file descriptor of task tid's directory in procfs; -1 if the task has ended. */
static int open_task(int tid)
{
    int dir = openat(view.proc, path_of("%d", tid), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        check_shortage();
    return dir;
}

/*
 * Returns when the task in dir started, in clock ticks since boot; 0 if it has ended.  That is
 * field 22 of its stat file, as proc(5) numbers them.
 */
static uint64_t start_time_of(int dir)
{
    char text[1024], *s = NULL;

    if (read_host_file(dir, "stat", text, sizeof(text)) > 0)
        s = strrchr(text, ')'); /* field 2, the name, may have spaces and parentheses in it */
    for (int n = 22; n > 2 && s != NULL; n--)
        s = strchr(s + 1, ' ');
    return s == NULL ? 0 : strtoull(s, NULL, 10);
}

/*
 * Returns what the link at path under directory dir, of a process's file descriptor, says after
 * "anon_inode:kvm-": vm, vcpu:NUMBER or vcpu.  Returns "" if the file is not KVM's.  The next call
 * overwrites the text.
 */
static const char *kvm_descriptor(int dir, const char *path)
{
    static const char before[] = "anon_inode:kvm-";
    static char link[64];
    ssize_t size = readlinkat(dir, path, link, sizeof(link) - 1);

    if (size < 0)
        check_shortage();
    link[size < 0 ? 0 : size] = '\0';
    return strncmp(link, before, strlen(before)) == 0 ? link + strlen(before) : "";
}

/* Returns the vCPU's number in what kvm_descriptor() returned; -1 if there is none. */
static int vcpu_of_link(const char *what)
{
    return strncmp(what, "vcpu:", 5) == 0 ? parse_int(what + 5) : -1;
}

/*
 * Returns whether the process with this status file has ended, and its parent has not waited for
 * it.  One whose main thread alone has ended looks the same, but has other threads.
 */
static bool is_zombie(const char *status)
{
    return strstr(status, "\nState:\tZ") != NULL &&
           (strstr(status, "\nThreads:\t1\n") != NULL || strstr(status, "\nThreads:\t0\n") != NULL);
}

/* ASK_TASK: tells of which process thread q->id is, unless that has ended, and when it started. */
static void tell_task(const struct question *q, struct answer *a)
{
    char status[4096], *tgid = NULL;
    int dir = open_task(q->id);

    a->started = dir < 0 ? 0 : start_time_of(dir);
    if (a->started != 0 && read_host_file(dir, "status", status, sizeof(status)) > 0 &&
        !is_zombie(status))
        tgid = strstr(status, "\nTgid:");
    a->pid = tgid == NULL ? 0 : (int)strtol(tgid + strlen("\nTgid:"), NULL, 10);
    if (a->pid == 0)
        a->error = ESRCH;
    a->machine = a->pid != 0 && q->fd >= 0 &&
                 strcmp(kvm_descriptor(dir, path_of("fd/%d", q->fd)), "vm") == 0;
    if (dir >= 0)
        close(dir);
}

/* ASK_CALL: tells which vCPU thread q->id is in the system call ioctl(KVM_RUN) of; -1: of none. */
static void tell_call(const struct question *q, struct answer *a)
{
    enum { KVM_RUN = 0xae80 }; /* linux/kvm.h: type and number, the low 16 bits of a request */
    char text[256], *s;

    a->pid = -1;
    if (read_host_file(view.proc, path_of("%d/syscall", q->id), text, sizeof(text)) <= 0 ||
        strtol(text, &s, 10) != SYS_ioctl)
        return; /* also if the text is "running" */
    unsigned long fd = strtoul(s, &s, 16), request = strtoul(s, &s, 16);
    if ((request & 0xffff) == KVM_RUN)
        a->pid = vcpu_of_link(kvm_descriptor(view.proc, path_of("%d/fd/%lu", q->id, fd)));
}

/*
 * Reads how many nanoseconds thread tid ran, and how many it waited for a CPU while it could have
 * run; tasks is a directory of threads in procfs.  times[RUN] may be NO_TIMES or ENDED_TIMES.
 */
static void read_times(int tasks, int tid, uint64_t times[static NSHARES])
{
    char text[80], *end = text;
    int fd = openat(tasks, path_of("%d/schedstat", tid), O_RDONLY | O_CLOEXEC);
    /* One read() only: there may be 10,000 files. */
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    bool ended = n < 0 && (errno == ENOENT || errno == ESRCH);
    if (fd >= 0)
        close(fd);
    text[n < 0 ? 0 : n] = '\0';
    for (int i = 0; i < NSHARES; i++)
        times[i] = strtoull(end, &end, 10);
    if (strtoull(end, NULL, 10) == 0) /* how often it ran: once at least */
        times[RUN] = ended ? ENDED_TIMES : NO_TIMES;
}

/* ASK_TIMES: tells the times of the threads q->ids of process q->id. */
static void tell_times(const struct question *q, struct answer *a)
{
    int tasks = openat(view.proc, path_of("%d/task", q->id), O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; i < q->nids; i++)
        read_times(tasks, q->ids[i], a->times[i]);
    a->size = q->nids * sizeof(a->times[0]);
    if (tasks >= 0)
        close(tasks);
}

/* Returns whether the answer has room for more, and took no longer than it may. */
static bool may_go_on(const struct question *q, struct answer *a)
{
    if (observer.looking->steps++ % 32 == 0)
        a->cut |= now(CLOCK_THREAD_CPUTIME_ID) - a->used >= q->limit;
    return a->size < sizeof(a->files) && !a->cut;
}

/* Adds a descriptor, or a thread, to what is told. */
static void tell(struct answer *a, struct descriptor d)
{
    a->files[a->size / sizeof(d)] = d;
    a->size += sizeof(d);
}

/* An open file, or a whole table of descriptors, that the observer has met. */
struct met {
    int tid;         /* a thread that had it then */
    int fd;          /* its number there; -1: this is a table */
    uint64_t number; /* its number: see struct descriptor */
};

/*
 * Compares, as kcmp(2) does: 0 the same, 1 or 2 which comes first.  Returns -1 with errno set if
 * one of the two is not there any more, or the kernel cannot compare.  Who keeps it waiting is
 * other.
 */
static long compare_files(int tid, int fd, const struct met *other)
{
    enum { KCMP_FILE = 0, KCMP_FILES = 2 }; /* linux/kcmp.h */
    int before = observer.looking->at;

    errno = 0;
    observer.looking->at = other->tid;
    long order = syscall(SYS_kcmp, tid, other->tid, fd < 0 ? KCMP_FILES : KCMP_FILE,
        (long)(fd < 0 ? 0 : fd), (long)(fd < 0 ? 0 : other->fd));
    observer.looking->at = before;
    return order;
}

/*
 * Returns what was met before of the file that is thread tid's descriptor fd or, if fd is -1, of
 * its table of descriptors; if nothing was, notes it as met now.  The next call may move it.  id is
 * what the descriptor is: files are kept by that, each lot in an order by which it is searched.
 */
static struct met *meet(int tid, int fd, int id)
{
    enum { LOTS = 1024 };
    static struct {
        struct met *met; /* in kcmp's order */
        size_t n;        /* number of these */
    } lots[LOTS];
    static struct met unknown;
    static uint64_t number;
    size_t i = (unsigned)id % LOTS, low = 0, high = lots[i].n;

    if (number == 0)
        number = observer.looking->serial << 32; /* another one than an earlier observer's */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct met *m = &lots[i].met[middle];
        long order = compare_files(tid, fd, m);
        if (order == 0)
            return m;
        if (order < 0 && compare_files(m->tid, m->fd, m) == 0)
            return unknown = (struct met){tid, fd, 0}, &unknown; /* tid has closed it, or ended */
        if (order < 0 && errno == ENOSYS)
            break;
        if (order < 0) { /* the other one has */
            memmove(m, m + 1, (--lots[i].n - middle) * sizeof(*m));
            high = lots[i].n < high ? high - 1 : high;
        } else if (order == 1) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    lots[i].met = insert(lots[i].met, lots[i].n++, sizeof(struct met), low);
    lots[i].met[low] = (struct met){tid, fd, ++number};
    return &lots[i].met[low];
}

/*
 * Goes on with the descriptors of task tid of the process that q asks about, whose directory is
 * dir: tells those that are KVM's or, of an ASK_HOLDERS, just the process if there is one.  Returns
 * false if this has to go on later.  Sets a->at.last to tid if it has any: a task that has ended
 * has none.
 */
static bool tell_table(const struct question *q, struct answer *a, int dir, int tid)
{
    enum { LARGE = 64 }; /* descriptors; in a search, a smaller table is not compared, but read */
    struct place *at = &a->at;
    bool search = q->kind == ASK_HOLDERS, go_on = true;
    DIR *d = open_host_dir(dir, "fd");
    struct dirent *e;

    if (d != NULL && at->fd != 0)
        seekdir(d, at->fd + 2); /* in procfs, 2 is behind . and .. */
    for (int n = 0; go_on && (e = next_host_entry(d)) != NULL; n++) {
        int fd = parse_int(e->d_name);
        if (fd < at->fd) /* also of . and .. */
            continue;
        /* Another process's table may have been read, which is this one's, too. */
        bool compare = search ? n == LARGE : !q->anew && tid == q->id && at->last == 0;
        const struct met *table = compare ? meet(tid, -1, NO_ID) : NULL;
        if (table != NULL && table->tid != tid) {
            a->pid = table->tid;
            break;
        }
        at->last = tid;
        at->fd = fd;
        go_on = may_go_on(q, a);
        const char *what = go_on ? kvm_descriptor(dirfd(d), e->d_name) : "";
        int id = strcmp(what, "vm") == 0     ? MACHINE
                 : strcmp(what, "vcpu") == 0 ? NAMELESS
                                             : vcpu_of_link(what);
        if (id == NO_ID)
            continue;
        if (!search)
            tell(a, (struct descriptor){tid, fd, id, false, meet(tid, fd, id)->number});
        else if (meet(tid, -1, NO_ID)->tid == tid)
            tell(a, (struct descriptor){at->pid, -1, NO_ID, false, 0});
        if (search)
            break;
    }
    at->fd = go_on ? 0 : at->fd;
    if (d != NULL)
        closedir(d);
    return go_on;
}

/*
 * Goes on with the process a->at.pid, whose directory is dir: with its descriptors, with those of
 * threads that have other ones than its first thread, which may have ended, and with its threads.
 * Of an ASK_HOLDERS, it is enough that one of these descriptors is KVM's.  Returns false if this
 * has to go on later.
 */
static bool tell_process(const struct question *q, struct answer *a, int dir)
{
    struct place *at = &a->at;
    size_t told = a->size;
    bool go_on = at->thread > 0 || tell_table(q, a, dir, at->pid);
    struct dirent *e;

    if (!go_on || a->pid != 0 || (q->kind == ASK_HOLDERS && a->size > told))
        return go_on;
    DIR *d = open_host_dir(dir, "task");
    for (int i = 1; go_on && (e = next_host_entry(d)) != NULL; i++) {
        int tid = parse_int(e->d_name);
        bool begun = i == at->thread && at->fd != 0;
        if (i < at->thread || tid <= 0)
            continue;
        at->thread = i;
        if (!(go_on = may_go_on(q, a)))
            break;
        if (q->kind == ASK_FILES && !begun)
            tell(a, (struct descriptor){tid, -1, NO_ID, false, 0});
        struct met last = {at->last, -1, 0}, first = {at->pid, -1, 0};
        if (tid == at->pid || (at->last != 0 && compare_files(tid, -1, &last) == 0))
            continue;
        if (at->last != 0 && (errno == ENOSYS || compare_files(tid, -1, &first) == 0))
            continue; /* the same ones; or, if the kernel cannot compare them, most likely so */
        int task = openat(dirfd(d), e->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (task >= 0) {
            go_on = tell_table(q, a, task, tid);
            close(task);
        }
        if (q->kind == ASK_HOLDERS && a->size > told)
            break;
    }
    if (d != NULL)
        closedir(d);
    return go_on;
}

/* ASK_FILES: goes on with the descriptors and threads of process q->id. */
static void tell_descriptors(const struct question *q, struct answer *a)
{
    int dir = open_task(q->id);

    a->at.pid = q->id;
    if (dir < 0 || (q->started != 0 && start_time_of(dir) != q->started))
        a->error = ESRCH; /* a process that has ended leaves its id to another one */
    else if (tell_process(q, a, dir))
        a->at.thread = -1;
    if (dir >= 0)
        close(dir);
}

/* ASK_HOLDERS: goes on with the search of all processes but those in q->ids. */
static void tell_holders(const struct question *q, struct answer *a)
{
    static DIR *d;      /* procfs */
    static int reached; /* the last process that was read from it */
    struct place *at = &a->at;

    if (d == NULL && (d = open_host_dir(view.proc, ".")) == NULL)
        a->error = ESRCH;
    else if (at->pid != reached)
        rewinddir(d);
    while (d != NULL && at->pid >= 0 && may_go_on(q, a)) {
        if (at->thread < 0) {
            const struct dirent *e = next_host_entry(d);
            int pid = e == NULL ? -1 : parse_int(e->d_name);
            if (e != NULL && pid <= at->pid) /* also of what is no process */
                continue;
            *at = (struct place){.pid = pid};
            for (size_t i = 0; i < q->nids; i++)
                at->thread = q->ids[i] == pid ? -1 : at->thread;
            continue;
        }
        observer.looking->at = at->pid;
        int dir = open_task(at->pid);
        a->pid = 0;
        if (dir < 0 || tell_process(q, a, dir))
            at->thread = -1;
        if (dir >= 0)
            close(dir);
    }
    reached = at->pid;
    if (d != NULL && at->pid < 0) {
        closedir(d);
        d = NULL;
    }
}

/* Names that VMMs give their vCPU threads: a number between two texts. */
static const struct {
    const char *before;               /* text before the number */
    const char *after;                /* text after the number */
} thread_names[] = {{"CPU ", "/KVM"}, /* QEMU */
    {"fc_vcpu ", ""},                 /* Firecracker */
    {"kvm-vcpu-", ""},                /* kvmtool */
    {"crosvm_vcpu", ""}, {"vcpu", ""} /* Cloud Hypervisor and others */};

/* Returns the vCPU's number in a thread's name; NO_ID if there is none. */
static int vcpu_of_name(const char *name)
{
    uint64_t id;

    for (size_t i = 0; i < sizeof(thread_names) / sizeof(thread_names[0]); i++) {
        size_t size = strlen(thread_names[i].before);
        const char *p = name + size;
        if (strncmp(name, thread_names[i].before, size) == 0 && parse_digits(&p, INT_MAX, &id) &&
            strcmp(p, thread_names[i].after) == 0)
            return (int)id;
    }
    return NO_ID;
}

/* Reads the name of thread tid, as read_file() does, and removes the newline behind it. */
static ssize_t read_comm(int tid, char *name, size_t size)
{
    ssize_t n = read_host_file(view.proc, path_of("%d/comm", tid), name, size);

    if (n > 0)
        name[--n] = '\0';
    return n;
}

/* ASK_THREADS: goes on with the threads of process q->id. */
static void tell_threads(const struct question *q, struct answer *a)
{
    DIR *d = open_host_dir(view.proc, path_of("%d/task", q->id));
    struct dirent *e = NULL;
    char name[64];

    for (int i = 1; may_go_on(q, a) && (e = next_host_entry(d)) != NULL; i++) {
        struct descriptor thread = {parse_int(e->d_name), -1, NO_ID, false, 0};
        if (i <= a->at.thread || thread.tid <= 0)
            continue;
        a->at.thread = i;
        if (q->fd == 1 && read_comm(thread.tid, name, sizeof(name)) > 0)
            thread.id = vcpu_of_name(name);
        tell(a, thread);
    }
    if (d == NULL)
        a->error = ESRCH;
    if (e == NULL && may_go_on(q, a))
        a->at.thread = -1;
    if (d != NULL)
        closedir(d);
}

/*
 * Returns the name in the value of QEMU's -name, made in place: what follows guest=, or what comes
 * first without a key.
 */
static char *qemu_name(char *s)
{
    char *name = s, *end = name;

    for (bool first = true;; first = false) {
        char *value = s + strcspn(s, "=,");
        bool plain = first && *value != '='; /* the first key is guest, and may be left out */
        bool guest = strncmp(s, "guest=", 6) == 0;

        value = plain ? s : *value == '=' ? value + 1 : value;
        if (plain || guest)
            end = name;
        for (s = value; *s != '\0' && (*s != ',' || s[1] == ','); s++) {
            if (*s == ',')
                s++; /* two commas stand for one */
            if (plain || guest)
                *end++ = *s;
        }
        if (*s++ == '\0')
            break;
    }
    *end = '\0';
    return name;
}

/* How the value of a VMM's option tells the guest's name. */
enum reading {
    AS_IT_IS,  /* it is the name */
    QEMU_NAME, /* the same after `='; in a word of its own, it is as qemu_name() reads it */
    SOCKET     /* it is the path of the API's socket: see socket_name() */
};

/*
 * Where the VMMs' command lines have the name that their users know a guest by.  Of the options of
 * a VMM, the first one that tells a name counts; of several such words, the last.
 */
static const struct {
    const char *vmm;      /* what its file is called, up to something like -system; empty: others */
    const char *option;   /* without its dashes; empty: the last word of the command line */
    enum reading reading; /* of its value */
} name_options[] = {
    {"qemu", "name", QEMU_NAME}, /* by libvirt, oVirt, OpenStack, KubeVirt, LXD, Incus, Kata, ... */
    {"qemu", "avd", AS_IT_IS},   /* Android's emulator */
    {"kvm", "name", QEMU_NAME},  /* QEMU by Proxmox VE, which gives it a number by -id, or Ganeti */
    {"firecracker", "id", AS_IT_IS},               /* the jailer gives it, too */
    {"firecracker", "api-sock", SOCKET},           /* started without the jailer */
    {"cloud-hypervisor", "api-socket", SOCKET},    /* Kata Containers' path has the sandbox's id */
    {"cloud-hypervisor", "event-monitor", SOCKET}, /* by libvirt: the API's is fd=N */
    {"crosvm", "name", AS_IT_IS},                  /* Android, Chrome OS */
    {"crosvm", "socket", SOCKET},                  /* Cuttlefish, and older ones of these */
    {"lkvm", "name", AS_IT_IS},                    /* kvmtool */
    {"runsc", "", AS_IT_IS},                       /* gVisor: the container's id */
    {"VBoxHeadless", "comment", AS_IT_IS}, /* VirtualBox, which tells -startvm an UUID ... */
    {"VBoxHeadless", "startvm", AS_IT_IS}, /* ... but a user of it a name */
    {"VirtualBoxVM", "comment", AS_IT_IS}, /* VirtualBox with a window */
    {"VirtualBoxVM", "startvm", AS_IT_IS}, /* the same, by a user */
    {"", "name", QEMU_NAME},               /* QEMU and others by a name of their own */
    {"", "id", AS_IT_IS}                   /* Kata's Dragonball: its shim has the id */
};

/*
 * Returns the name that the path of an API's socket tells, made in place: that of the file, but
 * for what is the same for all guests; it is empty if there is no path.
 */
static char *socket_name(char *path)
{
    /* Those of libvirt; Kata Containers, with three VMMs; Chrome OS and Android; Cuttlefish. */
    static const char *const common[] = {"-event-monitor-fifo", "/clh-api.sock", "/ch-api.sock",
        "/root/run/firecracker.socket", "/crosvm.sock", "/internal/crosvm_control.sock"};
    size_t size = strlen(path);

    if (strncmp(path, "fd=", 3) == 0)
        return path + size;
    for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++) {
        size_t n = strlen(common[i]);
        if (size > n && strcmp(path + size - n, common[i]) == 0) {
            path[size - n] = '\0';
            break;
        }
    }
    char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : strncmp(path, "path=", 5) == 0 ? path + 5 : path;
}

/* Returns whether the executable called file is that VMM's, as in name_options[]. */
static bool is_vmm(const char *file, const char *vmm)
{
    size_t size = strlen(vmm);

    return size != 0 && strncmp(file, vmm, size) == 0 && !isalpha((unsigned char)file[size]);
}

/*
 * Returns the value of the option of this name in word, which has one dash or two before it: what
 * follows `=', else next, the next word; NULL if word is not that option, or next is NULL.
 */
static char *option_value(char *word, const char *name, char *next)
{
    char *option = word + (*word == '-') + (*word == '-' && word[1] == '-');
    size_t size = strlen(name);

    if (option == word || strncmp(option, name, size) != 0)
        return NULL;
    return option[size] == '=' ? option + size + 1 : option[size] == '\0' ? next : NULL;
}

/*
 * Returns the last name that the option tells in the command line from command to end, as
 * name_in_command() has it; NULL: none.
 */
static char *name_by_option(char *command, char *end, const char *option, enum reading how)
{
    char *name = NULL;

    for (char *word = command, *next; word < end; word = next) {
        next = word + strlen(word) + 1;
        char *value = *option != '\0' ? option_value(word, option, next < end ? next : NULL)
                      : next >= end && word != command ? word
                                                       : NULL;
        if (value == NULL)
            continue;
        bool own_word = value == next;
        next = value + strlen(value) + 1;
        if (how == QEMU_NAME && own_word)
            value = qemu_name(value);
        else if (how == SOCKET)
            value = socket_name(value);
        if (*value != '\0')
            name = value;
    }
    return name;
}

/*
 * Returns the guest's name in the command line of its VMM: what an option of name_options[] tells,
 * or else what its file is called; NULL if that is QEMU's, which may have named its process, or
 * empty.  The command line is size bytes of NUL-ended words, with one more NUL behind; the name is
 * made in it, in place.
 */
static char *name_in_command(char *command, size_t size)
{
    char *slash = strrchr(command, '/'), *file = slash == NULL ? command : slash + 1, *name;
    bool known = false;

    for (size_t i = 0; i < sizeof(name_options) / sizeof(name_options[0]); i++) {
        const char *vmm = name_options[i].vmm;
        bool meant = *vmm == '\0' ? !known : is_vmm(file, vmm);
        known |= meant && *vmm != '\0';
        if (meant && (name = name_by_option(command, command + size, name_options[i].option,
                          name_options[i].reading)) != NULL)
            return name;
    }
    return *file == '\0' || is_vmm(file, "qemu") || is_vmm(file, "kvm") ? NULL : file;
}

/*
 * ASK_NAME: tells the name of the guest of process q->id; an empty one if its command line has
 * none, or the process is gone or may not be looked at.
 */
static void tell_name(const struct question *q, struct answer *a)
{
    static char *command;
    char *name;

    if (command == NULL)
        command = resize(NULL, MAX_COMMAND, 1);
    ssize_t n = read_host_file(view.proc, path_of("%d/cmdline", q->id), command, MAX_COMMAND);
    a->text[0] = '\0';
    if (n > 0 && (name = name_in_command(command, (size_t)n)) != NULL) {
        cut_name(name);
        strcpy(a->text, name);
    }
    a->size = strlen(a->text) + 1;
}

/* Answers q. */
static void answer(const struct question *q, struct answer *a)
{
    *a = (struct answer){.serial = q->serial, .at = q->at, .used = now(CLOCK_THREAD_CPUTIME_ID)};
    *observer.looking = (struct looking){q->serial, q->id, 0};
    view.shortage = 0;
    switch (q->kind) {
    case ASK_TASK: tell_task(q, a); break;
    case ASK_COMM:
        if ((a->size = (size_t)(read_comm(q->id, a->text, sizeof(a->text)) + 1)) == 0)
            a->error = ESRCH;
        break;
    case ASK_NAME: tell_name(q, a); break;
    case ASK_FILES: tell_descriptors(q, a); break;
    case ASK_HOLDERS: tell_holders(q, a); break;
    case ASK_CALL: tell_call(q, a); break;
    case ASK_THREADS: tell_threads(q, a); break;
    case ASK_TIMES: tell_times(q, a); break;
    }
    observer.looking->at = 0;
    a->error = view.shortage != 0 ? view.shortage : a->error;
    a->used = now(CLOCK_THREAD_CPUTIME_ID) - a->used;
}

/* Returns, as bits, the capabilities that are needed to look at other users' processes. */
static uint32_t looking_capabilities(void)
{
    return 1u << SYS_PTRACE |
           1u << (has_capability(DAC_READ_SEARCH) ? DAC_READ_SEARCH : DAC_OVERRIDE);
}

/* Runs the observer: answers each question on the socket fd, until the other end is closed. */
static _Noreturn void observe(int fd)
{
    static struct answer a;
    static struct question q;

    is_observer = true;
    if (!close_others((int[]){fd, view.proc}, 2))
        errno = 0; /* as in the janitor */
    keep_capabilities(looking_capabilities());
    /* If the one before was late, nobody will answer what that one was asked. */
    a = (struct answer){
        .serial = observer.looking->serial, .error = ETIMEDOUT, .pid = observer.looking->at};
    if (a.pid != 0)
        send(fd, &a, offsetof(struct answer, files), MSG_NOSIGNAL);
    while (recv(fd, &q, sizeof(q), 0) > 0) {
        answer(&q, &a);
        send(fd, &a, offsetof(struct answer, files) + a.size, MSG_NOSIGNAL);
    }
    _exit(0);
}

/* Returns whether process pid, a child, has a CPU or waits for one: it does not sleep. */
static bool is_running(pid_t pid)
{
    char text[1024], *s = NULL;

    if (read_file(view.proc, path_of("%d/stat", (int)pid), text, sizeof(text)) > 0)
        s = strrchr(text, ')');
    return s != NULL && strncmp(s, ") R", 3) == 0;
}

/*
 * Called in the janitor, whose child pid is the observer; 0: there is none yet.  Returns pid, or a
 * new observer if that one has ended, or sleeps and came no further since this was called before:
 * then it is killed.
 */
static pid_t renew_observer(pid_t pid, int fd)
{
    static struct looking before;
    struct looking l = *observer.looking;

    if (pid > 0 && waitpid(pid, NULL, WNOHANG) == 0) {
        bool late = l.serial == before.serial && l.steps == before.steps;
        before = l;
        if (!late || is_running(pid))
            return pid;
        kill(pid, SIGKILL); /* and nobody waits for its end */
    }
    before.serial = UINT64_MAX; /* the new one has time, too */
    pid = fork();
    if (pid == 0)
        observe(fd);
    return pid;
}

/*
 * Sets how long kvmstat waits for an answer before it asks the janitor: the shorter, the more
 * processes gave none in this interval.
 */
static void set_patience(void)
{
    uint64_t patience = PATIENCE / (1 + observer.nlate);

    patience = patience < LEAST_PATIENCE ? LEAST_PATIENCE : patience;
    setsockopt(observer.fd, SOL_SOCKET, SO_RCVTIMEO,
        &(struct timeval){.tv_usec = (suseconds_t)(patience / 1000)}, sizeof(struct timeval));
}

/* Leaves out process or thread id for a while: it kept an observer waiting. */
static void leave_out(int id)
{
    uint64_t time = now(CLOCK_MONOTONIC);
    size_t place = observer.nhung;
    bool known = false;

    for (size_t i = 0; i < observer.nhung; i++) {
        known |= observer.hung[i].pid == id;
        if (observer.hung[i].pid == id || observer.hung[i].until <= time)
            place = i;
    }
    if (place == observer.nhung) {
        observer.hung = grow(observer.hung, observer.nhung, sizeof(*observer.hung));
        observer.nhung++;
    }
    if (!known) {
        observer.left_out = id;
        observer.nleft_out++;
    }
    observer.hung[place] = (struct hung){id, time + AGAIN};
}

/* Returns whether process or thread id is left out now. */
static bool is_left_out(int id)
{
    uint64_t time = now(CLOCK_MONOTONIC);

    for (size_t i = 0; i < observer.nhung; i++) {
        if (observer.hung[i].pid == id && time < observer.hung[i].until)
            return true;
    }
    return false;
}

/*
 * Returns whether a signal that asks for the end has come.  Such signals are held back while
 * kvmstat works.
 */
static bool is_end_asked(void)
{
    sigset_t pending;

    if (signalled != 0)
        return true;
    sigpending(&pending);
    for (size_t i = 0; i < NENDINGS; i++) {
        if (sigismember(&pending, endings[i]) == 1)
            return true;
    }
    return false;
}

/*
 * Asks the observer q, and waits for the answer as long as the observer works, but not while it
 * sleeps.  Returns 0 with observer.answer set, or an errno: ESRCH if there is no such process or
 * thread; ETIMEDOUT if it kept the observer waiting now or, unless its name is asked for, not long
 * ago; EBUSY if this host has no CPU time.  May end kvmstat, as check_shortage() does.
 */
static int ask(struct question *q)
{
    struct answer *a = &observer.answer;
    uint64_t asked = now(CLOCK_MONOTONIC), waited;
    size_t size = offsetof(struct question, ids) + q->nids * sizeof(q->ids[0]);
    ssize_t n = -1;

    if (q->kind != ASK_NAME && is_left_out(q->id))
        return ETIMEDOUT;
    q->serial = ++observer.serial;
    q->limit = view.left < LEAST_TIME ? LEAST_TIME : view.left;
    if (send(observer.fd, q, size, MSG_NOSIGNAL) >= 0) {
        do
            n = recv(observer.fd, a, sizeof(*a), 0);
        while (n < 0 ? write(trace.janitor_pipe, "", 1) == 1 && !is_end_asked() &&
                           now(CLOCK_MONOTONIC) - asked < MAX_PATIENCE
                     : n > 0 && a->serial != q->serial);
    }
    waited = n > 0 && a->error != ETIMEDOUT ? a->used : now(CLOCK_MONOTONIC) - asked;
    view.left -= waited < view.left ? waited : view.left;
    if (n <= 0)
        return view.cut = true, EBUSY;
    if (a->error == ETIMEDOUT) {
        observer.nlate++;
        set_patience();
        /* A new observer has met no file, and numbers them anew. */
        for (size_t i = 0; i < world.nguests; i++) {
            struct guest *g = world.guests[i];
            g->stale |= g->gone == 0;
            g->nread = 0;
            g->at = (struct place){.pid = 0};
        }
        if (q->kind != ASK_NAME || a->pid != q->id)
            leave_out(a->pid);
        if (q->kind != ASK_HOLDERS && a->pid != q->id) {
            q->at = (struct place){.pid = 0};
            return ask(q); /* another process was only compared with */
        }
    } else if (a->error != 0 && q->kind != ASK_NAME) {
        errno = a->error;
        check_shortage();
    }
    return a->error;
}

/* Asks about task tid, and returns what ask() does. */
static int ask_task(int tid)
{
    struct question q = {.kind = ASK_TASK, .id = tid, .fd = -1};

    return ask(&q);
}

/* Returns how many descriptors or threads the last answer tells. */
static size_t ntold(void)
{
    return observer.answer.size / sizeof(observer.answer.files[0]);
}

/* Returns the time that a look may take of the observer's, in nanoseconds. */
static uint64_t look_limit(void)
{
    if (reading.start == 0)
        return FIRST_LOOK;
    return options.interval / 2 < MAX_LOOK ? options.interval / 2 : MAX_LOOK;
}

/*
 * Returns whether the current look may go on.  Once its time is used up, or kvmstat is to end, sets
 * view.cut and returns false: so a look is short, whatever a guest's owner made.
 */
static bool has_time(void)
{
    view.cut |= view.left == 0 || is_end_asked();
    return !view.cut;
}

/*
 * This host: the tracefs instance.  kvmstat changes tracing only in its own instance, except that
 * it removes the instances of dead kvmstats.
 */

#define REMOVE_TRIES 500 /* tries, 10 ms apart, to remove a busy instance */

/*
 * Removes the instance, and returns whether it is gone.  It is busy while a file of it is open: a
 * process that was killed may still be closing its files, or somebody may be looking at one.  Then
 * this function tries again, REMOVE_TRIES times, every 10 ms.  After a tenth of the tries it
 * disables the events, so that an instance that stays costs no CPU time.
 */
static bool remove_instance(void)
{
    for (int i = 0; i < REMOVE_TRIES; i++) {
        if (unlinkat(trace.instances, trace.name, AT_REMOVEDIR) == 0 || errno == ENOENT ||
            errno == ENODEV) /* another kvmstat, which is starting, is just removing it */
            return true;
        if (errno != EBUSY)
            return false;
        if (i == REMOVE_TRIES / 10)
            write_file(trace.instances, path_of("%s/events/enable", trace.name), "0");
        nanosleep(&(struct timespec){.tv_nsec = NSEC / 100}, NULL);
    }
    return false;
}

/*
 * Starts an observer, which answers on the socket questions, and another one when the pipe life
 * asks for it and the former one hangs, until the end of life.
 */
static void keep_observer(int life, int questions)
{
    pid_t pid = 0;
    char asked[64]; /* this may have been done more often meanwhile */
    ssize_t n;

    do
        pid = renew_observer(pid, questions);
    while ((n = read(life, asked, sizeof(asked))) > 0 || (n < 0 && errno == EINTR));
    close(view.proc); /* who closes it last frees all that was ever looked at: not the janitor */
    if (pid > 0)
        kill(pid, SIGKILL);
}

/*
 * Runs the janitor, which waits for the end of the pipe life: for that of its parent, which alone
 * can write to it.  What the parent writes there asks for a new observer: kvmstat has given up the
 * rights to start one.  questions is the observer's socket, proc its procfs, tracefs the janitor's.
 */
static _Noreturn void run_janitor(int life, int questions, int proc, int tracefs)
{
    /* Signals to the terminal's process group, or to all kvmstats, are meant for the parent. */
    setsid();
    for (size_t i = 0; i < NENDINGS; i++)
        signal(endings[i], SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* nobody waits for observers */
    trace.instances = openat(tracefs, "instances", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    keep_capabilities(
        looking_capabilities() | (is_own_directory(trace.instances) ? 0 : 1u << DAC_OVERRIDE));
    /*
     * If these calls fail, the only harm is that the janitor keeps a file system from being
     * unmounted, or a removed file from being freed.
     */
    if (!close_others((int[]){life, trace.instances, questions, proc}, 4) || chdir("/") != 0)
        errno = 0;
    view.proc = proc;
    keep_observer(life, questions);
    _exit(trace.instances < 0 ? 2 : remove_instance() ? 0 : 1);
}

/*
 * Starts the janitor, the process that removes the instance when this process has ended, however it
 * ended; and with it the observer.  Ends kvmstat if that fails.
 */
static void start_janitor(void)
{
    int life[2], questions[2], proc = open_root("proc", "/proc", PROCFS_MAGIC);
    int tracefs = find_tracefs(); /* -1 if there is none: then no instance is made */

    if (proc < 0)
        fail_errno("/proc");
    snprintf(trace.name, sizeof(trace.name), "kvmstat.%d", (int)getpid());
    observer.looking = mmap(
        NULL, sizeof(*observer.looking), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (observer.looking == MAP_FAILED)
        fail_errno("memory");
    if (pipe2(life, O_CLOEXEC) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, questions) != 0)
        fail_errno("pipe");
    trace.janitor = fork();
    if (trace.janitor == 0) {
        close(life[1]);
        close(questions[0]);
        run_janitor(life[0], questions[1], proc, tracefs);
    }
    if (trace.janitor < 0) {
        trace.janitor = 0;
        fail("fork: %s (too many processes, or too little memory)", strerror(errno));
    }
    close(life[0]);
    close(questions[1]);
    close(proc);
    close(tracefs);
    trace.janitor_pipe = life[1];
    observer.fd = questions[0];
    set_patience();
}

/*
 * Removes the instances that dead kvmstats left; that of a live one is busy.  The caller has called
 * lock_instances(), for an instance that is only half made would pass for a dead one's.
 */
static void remove_dead_instances(void)
{
    DIR *d = open_dir(trace.instances, ".");
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strncmp(e->d_name, "kvmstat.", 8) == 0 && parse_int(e->d_name + 8) > 0)
            unlinkat(trace.instances, e->d_name, AT_REMOVEDIR);
    }
    if (d != NULL)
        closedir(d);
}

/* Makes the instance, with tracing off, and opens what keeps others from removing it. */
static void create_instance(void)
{
    remove_dead_instances();
    if (mkdirat(trace.instances, trace.name, 0700) != 0) {
        int error = errno;
        kill(trace.janitor, SIGKILL); /* it would find no instance of this kvmstat to remove */
        waitpid(trace.janitor, NULL, 0);
        trace.janitor = 0;
        errno = error;
        fail_errno("tracefs instance");
    }
    trace.dir = openat(trace.instances, trace.name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (trace.dir < 0)
        fail_errno("tracefs instance");
    trace.hold = openat(trace.dir, "tracing_on", O_WRONLY | O_CLOEXEC);
    if (trace.hold < 0 || write(trace.hold, "0", 1) != 1)
        fail_errno("tracing_on");
}

/* Writes value to the instance's file name. */
static void set_in_instance(const char *name, const char *value)
{
    if (write_file(trace.dir, name, value) != 0)
        fail_errno(name);
}

/* Returns whether sysfs, a file descriptor of its root, has the file path. */
static bool has_file(int sysfs, const char *path)
{
    if (faccessat(sysfs, path, F_OK, 0) == 0)
        return true;
    if (errno != ENOENT)
        fail_errno(path);
    return false;
}

/*
 * Returns whether the host has only the software backend, kvm_pvm, which never fires kvm_exit.
 * Without a module for its processor, it has none, and could run no guest, though kvm has events.
 */
static bool has_only_software(void)
{
    int sysfs = open_root("sysfs", "/sys", SYSFS_MAGIC);

    if (sysfs < 0)
        fail("/sys: not sysfs (mount it: mount -t sysfs nodev /sys)");
    if (!has_file(sysfs, "class/misc/kvm"))
        fail("/dev/kvm: the module that makes it is not loaded (%s)", load_kvm);
    bool software = has_file(sysfs, "module/kvm_pvm") && !has_file(sysfs, "module/kvm_intel") &&
                    !has_file(sysfs, "module/kvm_amd");
    close(sysfs);
    return software;
}

/* Enables, without filters, the events that choose_events() wants. */
static void switch_events_on(void)
{
    for (int i = 0; i < NEVENTS; i++) {
        if (!events[i].wanted)
            continue;
        set_in_instance(path_of("events/%s/filter", events[i].name), "0"); /* no filter */
        set_in_instance(path_of("events/%s/enable", events[i].name), "1");
    }
}

/*
 * Reads the events' formats, decides which events this host and the table need, and enables these.
 */
static void enable_events(void)
{
    static char text[1 << 16];

    for (int i = 0; i < NEVENTS; i++) {
        const char *path = path_of("events/%s/format", events[i].name);
        if (read_file(trace.dir, path, text, sizeof(text)) < 0) {
            if (errno != ENOENT)
                fail_errno(path);
        } else if (!parse_format(&events[i], text)) {
            fail("%s: not understood (is this kernel newer than kvmstat?)", path);
        }
    }
    const char *missed = choose_events(has_only_software());
    if (missed != NULL)
        fail("%s: no such trace event (kvmstat cannot count this on this architecture)", missed);
    check_reasons(events[KVM_EXIT].name);
    switch_events_on();
}

/*
 * Appends to t the ids of all threads of the guests of -p, with a space after each.  Returns how
 * many ids these are.
 */
static size_t put_thread_ids(struct text *t)
{
    size_t n = 0;

    for (size_t i = 0; i < world.nguests; i++) {
        struct question q = {.kind = ASK_THREADS, .id = world.guests[i]->pid};
        if (!world.guests[i]->asked || world.guests[i]->gone != 0)
            continue;
        for (; q.at.thread >= 0 && ask(&q) == 0; q.at = observer.answer.at) {
            for (size_t j = 0; j < ntold(); j++, n++) {
                char id[21], *s = digits((uint64_t)observer.answer.files[j].tid, id);
                put_bytes(t, s, strlen(s));
                put_bytes(t, " ", 1);
            }
        }
    }
    return n;
}

/*
 * Has only the threads of the guests of -p traced, and those that they will start.  Ends kvmstat if
 * there are none and tracing has not begun.
 */
static void set_pids(void)
{
    struct text t = {.s = NULL};
    size_t n = 0, before;

    set_in_instance("options/event-fork", "1");
    /*
     * A thread may start another one after the list was read and before it is written: the loop
     * goes on until no more threads appear.
     */
    do {
        before = n;
        t.size = 0;
        n = put_thread_ids(&t);
        if (n == 0 && reading.start == 0)
            fail("-p: no such process (it has ended)");
        if (n == 0)
            put_bytes(&t, "1 ", 2); /* an empty list would have all threads traced */
        put_bytes(&t, "", 1);
        set_in_instance("set_event_pid", t.s);
    } while (n > before);
    free(t.s);
}

/*
 * -w: per cent of a buffer that must be full to wake kvmstat.  A sub-buffer with few events takes
 * as much room in the recording as a full one.
 */
#define WATERMARK "25"

/*
 * Sets how many per cent of a buffer must be full for poll() to say that it has something; with
 * "0", its first event suffices.  Before Linux 5.0, which has no such setting, it always does.
 */
static void set_watermark(const char *percent)
{
    static const char name[] = "buffer_percent";
    int r = write_file(trace.dir, name, percent);

    /* In 5.10, for one, its owner may only read it, and CAP_DAC_OVERRIDE was given up. */
    if (r != 0 && errno == EACCES && fchmodat(trace.dir, name, 0644, 0) == 0)
        r = write_file(trace.dir, name, percent);
    if (r != 0 && errno != ENOENT)
        fail_errno(name);
}

enum {
    MAX_SUBBUF_KIB = 16, /* a read of a larger one that is partly full copies too much */
    LEAST_SUBBUFS = 64   /* of a buffer, at least, if they are larger than the kernel's own */
};

/*
 * Makes the sub-buffers larger than the kernel's own where it can (since Linux 6.8): then fewer
 * reads take the same events.  With -w they stay small, since each look at few events takes one in
 * the recording; and so they do if the kernel finds no such pieces of memory.
 */
static void set_subbufs(void)
{
    static const char name[] = "buffer_subbuf_size_kb";
    static uint64_t own; /* the kernel's own size, in KiB; 0: it cannot be set */
    char text[32];

    if (own == 0 && read_file(trace.dir, name, text, sizeof(text)) > 0)
        own = strtoull(text, NULL, 10);
    if (own == 0)
        return;
    uint64_t kib = own;
    while (kib < MAX_SUBBUF_KIB && 2 * kib * LEAST_SUBBUFS <= options.kib && options.write == NULL)
        kib *= 2;
    snprintf(text, sizeof(text), "%" PRIu64, kib);
    write_file(trace.dir, name, text);
}

/*
 * Has the instance's buffers made, and finds out what their sub-buffers look like.  A later call
 * sets everything as the first one did.
 */
static void set_buffers(void)
{
    static char text[4096];

    set_subbufs(); /* before the buffer's size, which is in whole sub-buffers */
    snprintf(text, sizeof(text), "%" PRIu64, options.kib);
    set_in_instance("buffer_size_kb", text);
    set_in_instance("trace_clock", "mono"); /* events are stamped by CLOCK_MONOTONIC */
    /*
     * The instance inherits the host's setting; without overwriting, a full buffer drops events,
     * and no sub-buffer tells of the loss.
     */
    set_in_instance("options/overwrite", "1");
    set_in_instance("options/block", "0"); /* with it, poll() always says that there is something */
    set_watermark(options.write == NULL ? "0" : WATERMARK);
    if (read_file(trace.dir, "events/header_page", text, sizeof(text)) < 0)
        fail_errno("events/header_page");
    if (!parse_header_page(&reading.page, text))
        fail("events/header_page: not understood (is this kernel newer than kvmstat?)");
    reading.chunk = reading.page.size;
}

/* qsort(): in order of CPU number. */
static int compare_streams(const void *a, const void *b)
{
    const struct stream *x = a, *y = b;

    return x->cpu < y->cpu ? -1 : x->cpu > y->cpu;
}

/* Has every CPU's buffer polled, also those of CPUs that were never online up to now. */
static void watch_streams(void)
{
    for (size_t i = 0; i < reading.nstreams; i++)
        trace.polls[FIRST_STREAM + i] =
            (struct pollfd){.fd = reading.streams[i].fd, .events = POLLIN};
}

/* Opens each CPU's buffer, and fills trace.polls. */
static void open_streams(void)
{
    DIR *d = open_dir(trace.dir, "per_cpu");
    struct dirent *e;

    if (d == NULL)
        fail_errno("per_cpu");
    while ((errno = 0, e = readdir(d)) != NULL) {
        int cpu = strncmp(e->d_name, "cpu", 3) == 0 ? parse_int(e->d_name + 3) : -1;
        if (cpu < 0)
            continue;
        const char *path = path_of("per_cpu/cpu%d/trace_pipe_raw", cpu);
        /*
         * The room is made before the file is opened: if there is no memory, kvmstat ends, and
         * end_tracing() closes only files that have a place in reading.streams.
         */
        reading.streams = grow(reading.streams, reading.nstreams, sizeof(*reading.streams));
        int fd = openat(trace.dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            fail_errno(path);
        reading.streams[reading.nstreams++] = (struct stream){.cpu = cpu, .fd = fd};
    }
    if (errno != 0)
        fail_errno("per_cpu");
    closedir(d);
    qsort(reading.streams, reading.nstreams, sizeof(*reading.streams), compare_streams);
    reading.heap = resize(NULL, reading.nstreams + 1, sizeof(struct stream *));
    trace.polls = resize(NULL, FIRST_STREAM + reading.nstreams, sizeof(*trace.polls));
    trace.polls[POLL_UEVENTS] = (struct pollfd){.fd = view.uevents, .events = POLLIN};
    trace.polls[POLL_STDOUT] = (struct pollfd){.fd = STDOUT_FILENO}; /* the reader may go away */
    watch_streams();
}

/*
 * This host: the buffers of its CPUs.
 */

/* Asks the kernel, without waiting, which of the n buffers at p have something to read. */
static void poll_buffers(struct pollfd *p, size_t n)
{
    while (poll(p, n, 0) < 0) {
        if (errno != EINTR)
            fail("poll: %s", strerror(errno));
    }
}

/*
 * Returns whether s has something to read.  A buffer that has nothing must not be read: if its CPU
 * just then puts its next event on the page that was read last, and goes on to another page, the
 * kernel gives up the former page with the event on it, and reports no loss (rb_get_reader_page(),
 * up to Linux 6.18).
 */
static bool is_ready(const struct stream *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};

    if (s->ready)
        return true;
    poll_buffers(&p, 1);
    return (p.revents & POLLIN) != 0;
}

/* source.read_pages: reads one sub-buffer, which -w saves. */
static bool read_buffer(struct stream *s)
{
    ssize_t size;

    if (!is_ready(s))
        return false;
    s->ready = false;
    if (s->pages == NULL)
        s->pages = resize(NULL, reading.chunk, 1);
    do
        size = read(s->fd, s->pages, reading.chunk);
    while (size < 0 && errno == EINTR);
    if (size == 0 || (size < 0 && errno == EAGAIN))
        return false;
    if (size < 0)
        fail_errno("trace_pipe_raw");
    s->nbytes = (size_t)size;
    s->used = 0;
    if (options.write != NULL)
        save_subbuf(s);
    return true;
}

/*
 * source.add_lost: adds to s->lost how far the kernel's count of lost events has grown.  The
 * sub-buffer may have had no room for their number.  If the host is too short of something to tell,
 * sets s->lost_more.
 */
static void add_overrun(struct stream *s)
{
    const char *path = path_of("per_cpu/cpu%d/stats", s->cpu);
    char text[1024], *overrun;
    uint64_t total;

    if (read_host_file(trace.dir, path, text, sizeof(text)) < 0) {
        if (view.shortage == 0)
            fail_errno(path);
        s->lost_more = true;
        return;
    }
    if ((overrun = strstr(text, "\noverrun: ")) == NULL)
        fail("%s: not understood (is this kernel newer than kvmstat?)", path);
    total = strtoull(overrun + strlen("\noverrun: "), NULL, 10);
    s->lost += total < s->overrun ? total : total - s->overrun; /* less: the buffer was emptied */
    s->overrun = total;
}

/*
 * Asks the kernel which streams have something to read, even a single event, and sets ready of
 * each.  The same call asks for changes in the instance and for the end of stdout's reader.
 */
static void poll_streams(void)
{
    if (options.write != NULL)
        set_watermark("0");
    watch_streams();
    poll_buffers(&trace.polls[POLL_CHANGES], FIRST_STREAM - POLL_CHANGES + reading.nstreams);
    trace.quiet = true;
    for (size_t i = 0; i < reading.nstreams; i++) {
        struct pollfd *p = &trace.polls[FIRST_STREAM + i];
        if ((p->revents & POLLERR) != 0)
            p->fd = -1; /* its CPU was never online: waiting for it would end at once */
        reading.streams[i].ready = (p->revents & POLLIN) != 0;
        trace.quiet &= !reading.streams[i].ready;
    }
}

/* Counts all events in the CPUs' buffers stamped before the given time, see drain(). */
static void drain_buffers(uint64_t until)
{
    /*
     * The buffers are asked only now, after the clock was read for until: so they have all events
     * before that time.
     */
    poll_streams();
    drain(until);
    if (options.write != NULL)
        set_watermark(WATERMARK);
}

/*
 * This host: what others do in the instance.  Another program may disable its events, empty its
 * buffers or change their settings (trace-cmd reset -a does so in all instances): then the counts
 * are too low.  inotify tells of each such change, and costs nothing as long as there is none.
 */

/*
 * Has inotify watch the instance's directory path, which is empty or ends in a slash.  Makes it the
 * working directory, as inotify needs a path and the mount may be attached nowhere.  Ends kvmstat
 * if it cannot.
 */
static void watch_directory(const char *path)
{
    struct watch w = {.dir = openat(trace.dir, *path == '\0' ? "." : path, O_RDONLY | O_CLOEXEC)};

    snprintf(w.path, sizeof(w.path), "%s", path);
    trace.watches = grow(trace.watches, trace.nwatches, sizeof(w));
    if (w.dir < 0 || fchdir(w.dir) != 0)
        fail_errno(*path == '\0' ? "tracefs instance" : path);
    w.wd = inotify_add_watch(trace.inotify, ".", IN_MODIFY | IN_OPEN);
    if (w.wd < 0)
        fail("inotify: %s (raise fs.inotify.max_user_watches)", strerror(errno));
    if (strncmp(path, "events/", 7) != 0) {
        close(w.dir);
        w.dir = -1;
    }
    trace.watches[trace.nwatches++] = w;
}

/*
 * Watches all directories of the instance that kvmstat needs to stay as they are.  Leaves / as the
 * working directory.
 */
static void watch_instance(void)
{
    trace.inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (trace.inotify < 0)
        fail("inotify: %s (raise fs.inotify.max_user_instances)", strerror(errno));
    trace.polls[POLL_CHANGES] = (struct pollfd){.fd = trace.inotify, .events = POLLIN};
    watch_directory("");
    watch_directory("options/");
    watch_directory("events/");
    watch_directory("events/kvm/");
    for (int i = 0; i < NEVENTS; i++) {
        if (events[i].wanted)
            watch_directory(path_of("events/%s/", events[i].name));
    }
    for (size_t i = 0; i < reading.nstreams; i++)
        watch_directory(path_of("per_cpu/cpu%d/", reading.streams[i].cpu));
    if (chdir("/") != 0)
        fail_errno("/");
}

/*
 * Notes that somebody changed the file name in directory path of the instance, or took events from
 * it.
 */
static void note_touched(const char *path, const char *name)
{
    enum { MAX_TOUCHED = 4 }; /* names that a report lists; there may be many more */
    char text[64 + NAME_MAX];
    int size = snprintf(text, sizeof(text), " %s%s,", path, name);

    trace.changed = true;
    put_bytes(&trace.touched, "", 1);
    trace.touched.size--;
    if (strstr(trace.touched.s, text) != NULL)
        return;
    if (trace.ntouched++ < MAX_TOUCHED)
        put_bytes(&trace.touched, text, (size_t)size);
    else if (trace.ntouched == MAX_TOUCHED + 1)
        put_bytes(&trace.touched, " ...,", 5);
}

/*
 * Returns whether somebody who opens the file takes events from its buffer, or stops the buffer
 * meanwhile.
 */
static bool takes_events(const char *name)
{
    return strncmp(name, "trace_pipe", 10) == 0 ||
           (strcmp(name, "trace") == 0 &&
               faccessat(trace.dir, "options/pause-on-trace", F_OK, 0) != 0); /* before Linux 5.8 */
}

/* Notes what others did in the instance, as inotify tells it. */
static void note_changes(void)
{
    static _Alignas(struct inotify_event) char room[1 << 14];
    ssize_t size;

    while ((size = read(trace.inotify, room, sizeof(room))) > 0) {
        const struct inotify_event *e;
        for (const char *s = room; s < room + size; s += sizeof(*e) + e->len) {
            e = (const struct inotify_event *)s;
            const char *path = "", *name = e->len == 0 ? "" : e->name;
            bool changed = (e->mask & IN_MODIFY) != 0;
            for (size_t i = 0; i < trace.nwatches; i++)
                path = trace.watches[i].wd == e->wd ? trace.watches[i].path : path;
            /* kvmstat -w itself writes buffer_percent, again and again. */
            bool own = options.write != NULL && strcmp(name, "buffer_percent") == 0;
            if ((e->mask & IN_Q_OVERFLOW) != 0)
                note_touched("too many files to tell", "");
            else if (changed ? !own : takes_events(name))
                note_touched(path, name);
        }
    }
}

/* Drops what was read of s and not counted yet; the next sub-buffers may have another size. */
static void empty_stream(struct stream *s)
{
    free(s->pages);
    s->pages = NULL;
    s->nbytes = s->used = 0;
    s->subbuf = (struct subbuf){.size = 0};
    s->ready = s->has_next = false;
}

/*
 * source.refuse: what was read of s cannot be true.  Ends kvmstat, unless another program changed
 * the instance since the last report.  Then drops what was read, and s has no events until
 * mend_instance() has set the instance right.
 */
static void refuse_buffer(struct stream *s, const char *what)
{
    note_changes();
    if (trace.ntouched == 0)
        fail("CPU %d: %s (is this kernel newer than kvmstat?)", s->cpu, what);
    empty_stream(s);
}

/*
 * Sets the instance up again as it was, if others changed it.  Drops what its buffers have, since
 * their stamps may be of another clock.  In a recording that is made (-w), each CPU's next
 * sub-buffer tells of a loss.
 */
static void mend_instance(void)
{
    char on[8] = "";

    /* The kernel itself may have switched tracing off: by a trigger, or after an oops. */
    if (read_file(trace.dir, "tracing_on", on, sizeof(on)) > 0 && *on == '0')
        note_touched("", "tracing_on");
    note_changes();
    if (!trace.changed)
        return;
    set_in_instance("tracing_on", "0");
    set_in_instance("events/enable", "0");
    set_in_instance("current_tracer", "nop");
    set_buffers();
    set_in_instance("set_event_pid", "");
    if (options.some)
        set_pids();
    write_file(trace.dir, "set_event_notrace_pid", ""); /* since Linux 5.7 */
    switch_events_on();
    set_in_instance("trace", "");
    for (size_t i = 0; i < reading.nstreams; i++) {
        empty_stream(&reading.streams[i]);
        reading.streams[i].overrun = 0;
        reading.streams[i].marked = true;
    }
    size_t ntouched = trace.ntouched, size = trace.touched.size;
    set_in_instance("tracing_on", "1");
    reading.gap = reading.mended = now(CLOCK_MONOTONIC);
    note_changes(); /* kvmstat's own changes, which are forgotten here */
    trace.ntouched = ntouched;
    trace.touched.size = size;
    trace.changed = false;
}

/*
 * Returns whether the kvm module was unloaded: then its events are gone or, if it was loaded again,
 * are new ones, which are not enabled.
 */
static bool is_unloaded(void)
{
    char on[8] = "";

    for (int i = 0; i < NEVENTS && *on == '\0'; i++) {
        const char *path = path_of("events/%s/enable", events[i].name);
        if (events[i].wanted && read_host_file(trace.dir, path, on, sizeof(on)) < 0 &&
            errno == ENOENT)
            *on = '0';
    }
    if (*on == '0')
        note_changes(); /* somebody may just have disabled the event instead */
    return *on == '0' && !trace.changed;
}

/*
 * Says, in one line, what others changed in the instance since the last report.  If they changed
 * nothing since, but the instance was set right after start, where this report's interval begins,
 * says that.  Returns whether the counts of this report are too low.
 */
static bool report_changes(uint64_t start)
{
    mend_instance();
    if (trace.ntouched != 0)
        complain("%.*s: changed or read by another program (set right again; the counts of this "
                 "report are too low)",
            (int)trace.touched.size - 2, trace.touched.s + 1);
    else if (reading.mended > start)
        complain("tracing was set right again in this interval only (the counts of this report are "
                 "too low)");
    trace.ntouched = trace.touched.size = 0;
    reading.lossy |= reading.mended > start;
    return reading.mended > start;
}

/*
 * This host: processes and threads.  Their ids come into use again.  A process is told from an
 * earlier one with the same id by when it started, a thread by the event of its birth
 * (task_newtask).
 */

/* Converts a time of the trace clock, in nanoseconds, to clock ticks since boot. */
static uint64_t to_ticks(uint64_t time)
{
    uint64_t since_boot = time + now(CLOCK_BOOTTIME) - now(CLOCK_MONOTONIC);

    return since_boot / (NSEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* Converts clock ticks since boot to a time of the trace clock, in nanoseconds. */
static uint64_t from_ticks(uint64_t ticks)
{
    uint64_t since_boot = ticks * (NSEC / (uint64_t)sysconf(_SC_CLK_TCK));

    return since_boot - now(CLOCK_BOOTTIME) + now(CLOCK_MONOTONIC);
}

/*
 * Returns the process id of thread tid, from procfs; 0 if the thread has ended, or started after
 * the given time and so is not the one that had the id then.  Returns -1 if nothing tells now.
 */
static int process_then(int tid, uint64_t time)
{
    int error = ask_task(tid);

    if (error != 0)
        return error == ESRCH ? 0 : -1;
    return observer.answer.started <= to_ticks(time) ? observer.answer.pid : 0;
}

/* source.find_pid, from the event of the thread's birth or else from procfs. */
static int host_pid_of(int tid, uint64_t time)
{
    struct birth *b = birth_of(tid);

    if (b->tid == tid)
        return b->pid;
    int pid = process_then(tid, time);
    if (pid < 0)
        return 0;
    *b = (struct birth){tid, pid, false};
    return pid;
}

/* source.find_comm, from procfs.  Returns false with errno set, 0 if the name is empty. */
static bool find_host_comm(int tid, char *name, size_t size)
{
    struct question q = {.kind = ASK_COMM, .id = tid};

    errno = ask(&q);
    if (errno != 0 || *observer.answer.text == '\0')
        return false;
    snprintf(name, size, "%s", observer.answer.text);
    return true;
}

/*
 * Ends g if its process has ended, also if nobody has waited for it yet, or if the process's id is
 * by now that of another process, which started at another time.  error is what ask() returned when
 * it was asked about that process just now.
 */
static void end_if_gone(struct guest *g, int error)
{
    if (error == ESRCH && g->gone == 0)
        g->gone = now(CLOCK_MONOTONIC);
    if (error == 0 && g->started == 0)
        g->started = observer.answer.started;
    if (error == 0 && observer.answer.started != g->started)
        end_guest(g, from_ticks(observer.answer.started));
}

/* source.end_former, for the thread and the guest that had the id child. */
static void end_host_former(int child, int pid, uint64_t time)
{
    struct thread *t = known_thread(child);
    struct guest *g = known_guest(child);

    (void)pid;
    if (t != NULL)
        end_thread(t);
    /*
     * g may be the process whose birth this is, found in procfs before the event was read.  Starts
     * are exact to a clock tick, so that a difference of one tick tells nothing.
     */
    if (g != NULL && g->started + 1 < to_ticks(time))
        end_guest(g, time);
}

/*
 * This host: guests' names.  Their owners chose them: they can be any bytes.
 */

/* What was said of names. */
static struct {
    bool complained; /* kvmstat has said that a name is missing, and one still is */
    bool changed;    /* -m: a guest got another name since the metrics were made */
} naming;

/*
 * Asks for the name of g's guest, if the look has time left, and sets g->name to it.  If that
 * fails, kvmstat says so, unless it has said so of a name that is still missing; g keeps the name
 * it had, or else gets its process's name or, without one, `?'.
 */
static void name_guest(struct guest *g)
{
    struct question q = {.kind = ASK_NAME, .id = g->pid};
    char name[MAX_NAME + 1] = "";
    int error = view.left == 0 ? EBUSY : ask(&q);
    bool late = error == ETIMEDOUT || error == EBUSY;

    g->ask_at = error == 0 ? 0 : error == ETIMEDOUT ? now(CLOCK_MONOTONIC) + AGAIN : 1;
    if (error == 0)
        strcpy(name, observer.answer.text);
    else if (!naming.complained)
        complain(
            "/proc/%d/cmdline: %s (the process's name stands for the guest's until it is read)",
            g->pid, late ? "no answer in time" : strerror(error));
    naming.complained |= error != 0;
    if (error != 0 && g->name != NULL)
        return;
    if (*name == '\0' && !source->find_comm(g->pid, name, sizeof(name)))
        strcpy(name, "?");
    naming.changed |= g->name != NULL && strcmp(g->name, name) != 0;
    free(g->name);
    g->name = copy(name);
}

/*
 * Asks again for the names of guests that could not be told up to now, where this ended before:
 * that takes half of a look's time, whatever the look itself took.
 */
static void name_guests(void)
{
    static int last; /* the process that was asked for last */
    uint64_t time = now(CLOCK_MONOTONIC);
    bool missing = false;
    size_t first = 0;

    view.left = look_limit() / 2;
    while (first < world.nguests && world.guests[first]->pid <= last)
        first++;
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[(first + i) % world.nguests];
        if (g->gone == 0 && g->ask_at != 0 && g->ask_at <= time && view.left != 0) {
            name_guest(g);
            last = g->pid;
        }
        missing |= g->ask_at != 0;
    }
    naming.complained &= missing;
}

/*
 * This host: its guests, and the threads that have events.
 */

/*
 * source.learn_guest: finds out what procfs has of g.  Notes that g is gone if its process has
 * ended, or if the one that has its pid now started after the given time; and, with -m, whether its
 * pid was another guest's before.  With -p, find_asked() and choose_guests() set g->asked.
 */
static void learn_host_guest(struct guest *g, uint64_t time)
{
    bool named = options.names || options.metrics || options.write != NULL || options.nguests != 0;
    int error = ask_task(g->pid);

    g->asked = !options.some;
    g->started = error == 0 ? observer.answer.started : 0;
    if (error == ESRCH || g->started > to_ticks(time))
        g->gone = now(CLOCK_MONOTONIC);
    else if (named)
        name_guest(g);
    if (named && g->name == NULL)
        g->name = copy("?");
    if (options.metrics) {
        uint8_t *byte = &former_pids[(unsigned)g->pid % MAX_PIDS / 8];
        uint8_t bit = (uint8_t)(1 << g->pid % 8);
        g->reused = (*byte & bit) != 0;
        *byte |= bit;
    }
}

/* Returns the guest of the process that has the id pid now, new if need be. */
static struct guest *guest_now(int pid)
{
    struct guest *g = known_guest(pid);

    if (g != NULL)
        end_if_gone(g, ask_task(g->pid));
    return guest_of(pid, now(CLOCK_MONOTONIC));
}

/* source.find_thread: a new thread's guest is that of its process. */
static struct thread *find_host_thread(int tid, uint64_t time)
{
    struct thread *t = known_thread(tid);

    if (t != NULL && t->guest != NULL && t->guest->former && time >= t->guest->gone)
        end_thread(t);
    if (t != NULL && t->guest != NULL)
        return t;
    int pid = pid_of(tid, time);
    if (pid == 0)
        return NULL;
    struct guest *g = known_guest(pid);
    /*
     * With -p, births of processes outside its list are not traced: only procfs can tell that pid
     * is another process's by now.
     */
    if (g != NULL && options.some)
        end_if_gone(g, ask_task(g->pid));
    if (g == NULL || (g->former && time >= g->gone))
        g = add_guest(pid, time);
    if (options.write != NULL)
        save_command(tid);
    return thread_of(tid, g);
}

/*
 * Which guests there are.  A process's file descriptors are its own, and tell its VMs and vCPUs.
 * They are read anew when a VM is made (the kernel announces it by a uevent), when an event shows
 * that a process is a guest, and when debugfs, which has a directory for each VM and in it one for
 * each vCPU, has changed.  Not all VMs have such a directory.  Several processes may have a VM
 * open, and only that which runs it, or made it, shows it.
 */

/* Goes on reading which of g's file descriptors are KVM's, and notes these once all are read. */
static void read_guest(struct guest *g)
{
    struct question q = {.kind = ASK_FILES, .id = g->pid, .started = g->started, .at = g->at};
    const struct answer *a = &observer.answer;

    if (g->at.pid == 0)
        g->begun = now(CLOCK_MONOTONIC);
    while (q.at.thread >= 0 && has_time()) {
        int error = ask(&q);
        q.at = a->at;
        /* The process that shares g's table may be no guest: then the table is read for g. */
        g->twin = error == 0 && a->pid != 0 ? pid_of(a->pid, now(CLOCK_MONOTONIC)) : 0;
        if (g->twin != 0 && known_guest(g->twin) == NULL) {
            g->twin = 0;
            q.at = (struct place){.pid = 0};
            q.anew = true;
            continue;
        }
        if (error != 0) {
            g->nread = 0;
            q.at = (struct place){.pid = 0};
            if (error == ESRCH)
                end_if_gone(g, ask_task(g->pid));
            break;
        }
        for (size_t i = 0; i < ntold(); i++) {
            if (a->files[i].fd < 0 && reading.start == 0)
                *birth_of(a->files[i].tid) = (struct birth){a->files[i].tid, g->pid, false};
            if (a->files[i].fd < 0)
                continue;
            g->read = grow(g->read, g->nread, sizeof(*g->read));
            g->read[g->nread++] = a->files[i];
        }
    }
    g->looked = now(CLOCK_MONOTONIC);
    g->at = q.at;
    if (q.at.thread >= 0)
        return;
    free(g->files);
    g->files = g->read;
    g->nfiles = g->nread;
    g->read = NULL;
    g->nread = 0;
    g->at = (struct place){.pid = 0};
    if (g->twin != 0 || g->nfiles != 0) /* one that is ending has none any more */
        g->read_at = g->twin == 0 ? g->begun : known_guest(g->twin)->read_at;
    g->stale = g->looked < g->unsettled_until;
    view.changed = true;
}

/* qsort(): guests that were never looked at, the oldest first; then those looked at longest ago. */
static int compare_looked(const void *a, const void *b)
{
    const struct guest *x = *(struct guest *const *)a, *y = *(struct guest *const *)b;

    if (x->looked == y->looked)
        return x->started < y->started ? -1 : x->started > y->started;
    return x->looked < y->looked ? -1 : 1;
}

/* Reads the file descriptors of guests where they may have changed, as far as there is time. */
static void read_guests(void)
{
    static struct guest **list;
    size_t n = 0;

    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        g->stale |= view.debugfs < 0;
        if (g->gone != 0 || !g->asked || !g->stale)
            continue;
        list = grow(list, n, sizeof(struct guest *));
        list[n++] = g;
    }
    if (n > 1)
        qsort(list, n, sizeof(struct guest *), compare_looked);
    for (size_t i = 0; i < n && has_time(); i++)
        read_guest(list[i]);
}

/*
 * Goes on with the search of all processes for those that have VMs and are no guests yet, or begins
 * one that is wanted.  A search may take several looks.
 */
static void search_processes(void)
{
    struct question q = {.kind = ASK_HOLDERS};
    uint64_t time = now(CLOCK_MONOTONIC);

    if (view.search.pid < 0 && view.search_again) {
        view.search = (struct place){.pid = 0, .thread = -1};
        view.search_again = false;
    }
    while (view.search.pid >= 0 && has_time()) {
        q.nids = 0;
        for (size_t i = 0; i < observer.nhung && q.nids < MAX_ASKED; i++) {
            if (time < observer.hung[i].until)
                q.ids[q.nids++] = observer.hung[i].pid;
        }
        q.at = view.search;
        int error = ask(&q);
        if (error == ETIMEDOUT)
            observer.answer.at = (struct place){.pid = observer.answer.pid, .thread = -1};
        else if (error != 0)
            break;
        view.search = observer.answer.at;
        size_t n = ntold();
        for (size_t i = 0; i < n; i++)
            q.ids[i] = observer.answer.files[i].tid;
        for (size_t i = 0; i < n; i++)
            guest_of(q.ids[i], time);
    }
}

/* qsort(), bsearch(): in order of inode. */
static int compare_vms(const void *a, const void *b)
{
    const struct vm *x = a, *y = b;

    return x->inode < y->inode ? -1 : x->inode > y->inode;
}

/* Reads which vCPUs the debugfs directory of m has. */
static void read_directory(struct vm *m)
{
    DIR *d = open_host_dir(view.debugfs, m->name);
    struct dirent *e;

    m->nvcpus = 0;
    while ((e = next_host_entry(d)) != NULL) {
        int id = strncmp(e->d_name, "vcpu", 4) == 0 ? parse_int(e->d_name + 4) : -1;
        if (id >= 0) {
            m->vcpus = grow(m->vcpus, m->nvcpus, sizeof(*m->vcpus));
            m->vcpus[m->nvcpus++] = id;
        }
    }
    if (d != NULL)
        closedir(d);
}

/*
 * Finds the guest whose VM m is, by the name of m's directory, PID-FD: PID is the thread that made
 * the VM, and FD was then the VM's file descriptor in that thread's process.  Both may have another
 * meaning by now; m->owner_sure tells that FD is still a VM.
 */
static void find_owner(struct vm *m)
{
    const char *s = m->name;
    uint64_t tid;

    if (!parse_digits(&s, INT_MAX, &tid) || *s++ != '-')
        return;
    struct question q = {.kind = ASK_TASK, .id = pid_of((int)tid, now(CLOCK_MONOTONIC))};
    m->fd = q.fd = parse_int(s);
    if (q.id == 0 || (options.some && known_guest(q.id) == NULL))
        return;
    int error = ask(&q);
    m->owner_sure = error == 0 && observer.answer.machine;
    if ((m->guest = known_guest(q.id)) != NULL)
        end_if_gone(m->guest, error);
    m->guest = guest_of(q.id, now(CLOCK_MONOTONIC));
    m->guest->stale = true;
}

/*
 * Adds the VM whose directory is e to view.vms.  Takes over what is known of it from the nold VMs
 * at old, which are in order of inode.
 */
static void add_vm(const struct dirent *e, struct vm *old, size_t nold)
{
    struct vm key = {.inode = e->d_ino};
    struct stat st;

    if (!isdigit((unsigned char)*e->d_name) || strlen(e->d_name) >= sizeof(key.name))
        return;
    if (fstatat(view.debugfs, e->d_name, &st, 0) != 0) {
        check_shortage();
        return;
    }
    struct vm *known = nold == 0 ? NULL : bsearch(&key, old, nold, sizeof(key), compare_vms);
    view.vms = grow(view.vms, view.nvms, sizeof(*view.vms));
    struct vm *m = &view.vms[view.nvms++];
    *m = key;
    if (known != NULL && strcmp(known->name, e->d_name) == 0) {
        *m = *known;
        *known = (struct vm){.inode = known->inode}; /* what is left in old are VMs that are gone */
    } else {
        strcpy(m->name, e->d_name);
        find_owner(m);
    }
    if (m->links != st.st_nlink)
        read_directory(m);
    /*
     * With two links there are no directories of vCPUs: there is no vCPU yet, or the kernel makes
     * none for vCPUs.
     */
    if (m->guest != NULL)
        m->guest->stale |= m->links != st.st_nlink || st.st_nlink == 2;
    m->links = st.st_nlink;
}

/* Reads debugfs's directory kvm anew, to view.vms. */
static void scan_vms(void)
{
    DIR *d = open_host_dir(view.debugfs, ".");
    struct vm *old = view.vms;
    size_t nold = view.nvms;
    struct dirent *e;

    if (d == NULL)
        return;
    view.vms = NULL;
    view.nvms = 0;
    while ((e = next_host_entry(d)) != NULL)
        add_vm(e, old, nold);
    closedir(d);
    if (view.nvms > 1)
        qsort(view.vms, view.nvms, sizeof(*view.vms), compare_vms);
    for (size_t i = 0; i < nold; i++) {
        if (old[i].guest != NULL)
            old[i].guest->stale = true;
        free(old[i].vcpus);
    }
    free(old);
}

/*
 * Compares the VMs in debugfs with the file descriptors of their owners.  A guest may have VMs
 * without a directory: then its file descriptors are read in every look.  Asks for a search of all
 * processes if a directory's owner is not known.
 */
static void check_vms(void)
{
    for (size_t i = 0; i < world.nguests; i++)
        world.guests[i]->ndirectories = 0;
    for (size_t i = 0; i < view.nvms; i++) {
        struct vm *m = &view.vms[i];
        bool lost = m->guest == NULL || (m->guest->nmachines == 0 && !m->guest->stale);
        if (m->guest != NULL)
            m->guest->ndirectories++;
        if (lost && !m->searched)
            m->searched = view.search_again = true;
    }
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        const struct guest *twin = g->twin == 0 ? g : known_guest(g->twin);
        g->stale |= g->nmachines > g->ndirectories || twin == NULL || twin->gone != 0;
    }
}

/* Returns whether debugfs has a directory for vCPU id of m. */
static bool has_directory(const struct vm *m, long id)
{
    for (size_t i = 0; i < m->nvcpus; i++) {
        if (m->vcpus[i] == id)
            return true;
    }
    return false;
}

/*
 * Returns the thread that ran vCPU id of m last, by debugfs; 0 if none has, -1 if debugfs does not
 * tell.
 */
static int last_thread(const struct vm *m, long id)
{
    const char *path = path_of("%s/vcpu%ld/pid", m->name, id);
    char text[32];

    return read_host_file(view.debugfs, path, text, sizeof(text)) > 0 ? (int)strtol(text, NULL, 10)
                                                                      : -1;
}

/* A file descriptor, for settle_owners(). */
struct held {
    struct guest *guest;     /* whose it is */
    struct descriptor *file; /* what it is */
};

/* qsort(): by open file. */
static int compare_held(const void *a, const void *b)
{
    uint64_t x = ((const struct held *)a)->file->number, y = ((const struct held *)b)->file->number;

    return x < y ? -1 : x > y;
}

/*
 * Returns whether the open file h is rather that of h's guest than that of best's: a VM is that of
 * the process that runs it or, as long as none does, of the one that made it; else the oldest's.
 */
static bool is_rather(const struct held *h, const struct held *best)
{
    const struct held *two[] = {h, best};
    int claims[2];

    for (int i = 0; i < 2; i++) {
        const struct descriptor *f = two[i]->file;
        const struct vm *m = two[i]->guest->shower->vms;
        while (m != NULL && (f->id == MACHINE ? m->fd != f->fd : !has_directory(m, f->id)))
            m = m->next;
        claims[i] = m != NULL ? 2 : two[i]->guest->shower->ran;
    }
    const struct guest *x = h->guest, *y = best->guest;
    return claims[0] != claims[1] ? claims[0] > claims[1] : x->started < y->started;
}

/* Notes which VMs the guests run or made, and which guests have run a vCPU. */
static void list_owners(void)
{
    for (size_t i = 0; i < world.nguests; i++) {
        world.guests[i]->vms = NULL;
        world.guests[i]->ran = false;
        world.guests[i]->shower = world.guests[i];
    }
    for (size_t i = 0; i < world.space; i++) {
        const struct thread *t = world.threads[i];
        if (t != NULL && t->guest != NULL)
            t->guest->ran |= t->ran;
    }
    for (size_t i = 0; i < view.nvms; i++) {
        struct vm *m = &view.vms[i];
        int tid = m->nvcpus == 0 ? 0 : last_thread(m, m->vcpus[0]);
        struct guest *g = tid <= 0 ? NULL : known_guest(pid_of(tid, now(CLOCK_MONOTONIC)));
        g = g == NULL || (g->nfiles == 0 && g->twin == 0) ? m->guest : g;
        m->next = g == NULL ? NULL : g->vms;
        if (g != NULL)
            g->vms = m;
    }
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i], *twin = g->twin == 0 ? NULL : known_guest(g->twin);
        if (twin != NULL && twin->shower->vms == NULL && (g->vms != NULL || g->ran))
            twin->shower = g;
    }
}

/*
 * Sets which vCPUs the guests have: those whose files are not lent.  Takes vCPUs' numbers from
 * debugfs where file descriptors do not tell them.
 */
static void show_vcpus(void)
{
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        g->shower->nmachines = 0;
        g->shower->nameless = false;
        for (size_t j = 0; j < g->nfiles; j++) {
            const struct descriptor *f = &g->files[j];
            if (f->lent)
                continue;
            g->shower->nmachines += f->id == MACHINE;
            g->shower->nameless |= f->id == NAMELESS;
            if (f->id >= 0)
                vcpu_of(g->shower, f->id)->found = true;
        }
    }
    for (size_t i = 0; i < view.nvms; i++) {
        const struct vm *m = &view.vms[i];
        for (size_t j = 0; j < m->nvcpus && m->guest != NULL && m->guest->nameless; j++)
            vcpu_of(m->guest, m->vcpus[j])->found = true;
    }
    for (size_t i = 0; i < world.nguests; i++) {
        const struct guest *g = world.guests[i];
        for (size_t j = 0; j < g->nvcpus; j++) {
            set_present(g->vcpus[j], g->vcpus[j]->found);
            g->vcpus[j]->found = false;
        }
    }
}

/* Decides whose the open files are that several processes have, and which vCPUs each guest has. */
static void settle_owners(void)
{
    static struct held *held;
    size_t n = 0;

    if (!view.changed)
        return;
    view.changed = false;
    list_owners();
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        for (size_t j = 0; j < g->nfiles && g->gone == 0; j++) {
            held = grow(held, n, sizeof(*held));
            held[n++] = (struct held){g, &g->files[j]};
            g->files[j].lent = false;
        }
    }
    if (n > 1)
        qsort(held, n, sizeof(*held), compare_held);
    for (size_t i = 1, best = 0; i < n; i++) {
        bool same = held[i].file->number == held[best].file->number && held[i].file->number != 0;
        if (same && held[i].guest != held[best].guest && is_rather(&held[i], &held[best])) {
            held[best].file->lent = true;
            best = i;
        } else if (same) {
            held[i].file->lent = true;
        } else {
            best = i;
        }
    }
    show_vcpus();
}

/*
 * Notes which guests' processes have ended.  With doubt (births may be missing), also asks when the
 * processes started: an id may have come into use again.  So it does with -p for one that has no VM
 * (any more): nobody may have waited for it yet.
 */
static void find_ended(bool doubt)
{
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        if (g->gone == 0 && kill(g->pid, 0) != 0 && errno == ESRCH)
            g->gone = now(CLOCK_MONOTONIC);
        else if (g->gone == 0 && (doubt || (options.some && g->nmachines == 0)))
            end_if_gone(g, ask_task(g->pid));
    }
}

/*
 * Notes that thread tid has made a VM, whose file descriptor may not be there yet: for ATTENTIVE
 * nanoseconds, each look reads those of the thread's process.
 */
static void expect_machine(int tid)
{
    uint64_t t = now(CLOCK_MONOTONIC);
    int pid = pid_of(tid, t);
    struct guest *g = pid == 0 || options.some ? known_guest(pid) : guest_now(pid);

    view.search_again |= pid == 0;
    view.attentive_until = t + ATTENTIVE;
    if (g != NULL) {
        g->unsettled_until = view.attentive_until;
        g->stale = true;
        if (g->name != NULL)
            g->ask_at = 1; /* it may have executed another program, which has another name */
    }
}

/*
 * Takes the uevents that came: for each VM that is made, the kernel says which thread made it
 * (since Linux 4.13; kvm_uevent_notify_change()).  Returns whether there was such a uevent.
 */
static bool read_uevents(void)
{
    static const char kvm[] = "/devices/virtual/misc/kvm";
    char text[8192];
    ssize_t n;
    bool any = false;

    while ((n = recv(view.uevents, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0 ||
           (n < 0 && errno == ENOBUFS)) {
        text[n < 0 ? 0 : n] = '\0';
        const char *path = strchr(text, '@');
        bool made = false;
        int tid = 0;
        for (const char *s = text; s < text + n; s += strlen(s) + 1) {
            made |= strcmp(s, "EVENT=create") == 0;
            tid = strncmp(s, "PID=", 4) == 0 ? parse_int(s + 4) : tid;
        }
        view.search_again |= n < 0; /* some uevents were dropped */
        if (path == NULL || strcmp(path + 1, kvm) != 0 || !made || tid <= 0)
            continue;
        expect_machine(tid);
        any = true;
    }
    view.search_again |= errno != EAGAIN;
    return any;
}

/*
 * Begins a look at the host: finds out which VMs the kernel has announced and debugfs has.  A
 * look's time is limited; what one look does not get to, the next one will.
 */
static void begin_look(void)
{
    view.left = look_limit();
    view.cut = false;
    if (view.uevents >= 0)
        read_uevents();
    else
        view.search_again = true;
    if (view.debugfs >= 0)
        scan_vms();
}

/* Goes on with the look: reads which vCPUs the guests have, where that may have changed. */
static void read_vcpus(void)
{
    read_guests();
    check_vms();
}

/*
 * Ends the look.  After one that took much time, none follows for some time, except for those of
 * reports.
 */
static void end_look(void)
{
    settle_owners();
    uint64_t used = look_limit() - view.left;
    bool quick = used < MAX_LOOK / 64 || reading.start == 0;
    view.next_look = quick ? 0 : now(CLOCK_MONOTONIC) + LOOK_SHARE * used;
}

/* Takes a whole look at the host: without -p, also searches other processes for VMs. */
static void look_at_all(void)
{
    begin_look();
    read_vcpus();
    if (!options.some) {
        search_processes();
        read_guests();
    }
    end_look();
}

/* Notes which vCPUs are there at the end of an interval. */
static void note_present(uint64_t end)
{
    for (size_t i = 0; i < world.nguests; i++) {
        const struct guest *g = world.guests[i];
        for (size_t j = 0; j < g->nvcpus && g->gone == 0; j++) {
            struct vcpu *v = g->vcpus[j];
            if (!v->present)
                continue;
            v->last = end;
            if (v->first == 0)
                v->first = end;
        }
    }
}

/*
 * This host: which thread runs which vCPU, where its events do not tell.
 */

/*
 * Returns whether the numbers of g's vCPUs have a gap.  Then a thread's name may tell another
 * number: QEMU's `CPU 3/KVM' is its fourth, which is KVM's 4 where a socket has 3 cores.  A vCPU of
 * a recording counts if that tells of it, and not only a thread's name.
 */
static bool has_gap(const struct guest *g)
{
    long next = 0;

    for (size_t i = 0; i < g->nvcpus && g->vcpus[i]->id != UNKNOWN_VCPU; i++) {
        bool counts = !is_recorded() || g->vcpus[i]->first != 0;
        if (counts && g->vcpus[i]->id != next++)
            return true;
    }
    return false;
}

/* Returns the vCPU's number in the name of thread tid of g; -1 if there is none, or in vain. */
static long vcpu_by_name(const struct guest *g, int tid)
{
    char name[64];

    return !has_gap(g) && source->find_comm(tid, name, sizeof(name)) ? vcpu_of_name(name) : NO_ID;
}

/*
 * Sets ran_last of threads whose vCPU is looked for: to the vCPU of m that they ran last, by
 * debugfs; to UNKNOWN_VCPU if that is more than one.  If it is not sure whose VM m is, takes such a
 * thread's guest for its owner.
 */
static void match_threads(struct vm *m)
{
    for (size_t i = 0; i < m->nvcpus; i++) {
        long id = m->vcpus[i];
        struct thread *t = known_thread(last_thread(m, id));
        if (t == NULL || t->guest == NULL || !t->guest->looked_for)
            continue;
        if (!m->owner_sure && t->guest != m->guest && t->ran_last == -1 && has_vcpu(t->guest, id))
            m->guest = t->guest;
        if (t->guest == m->guest)
            t->ran_last = t->ran_last == -1 || t->ran_last == id ? id : UNKNOWN_VCPU;
    }
}

/*
 * Calls match_threads() for the VMs whose owner is sure and has threads whose vCPU is looked for;
 * or, if sure is false, for those whose owner is not sure.
 */
static void match_all_threads(bool sure)
{
    for (size_t i = 0; i < view.nvms; i++) {
        struct vm *m = &view.vms[i];
        if (m->owner_sure == sure && (!sure || m->guest->looked_for))
            match_threads(m);
    }
}

/*
 * source.find_vcpu: what match_threads() noted, or else the system call that the thread is in; else
 * what was found before; else what the thread's name says; else the guest's only vCPU.  A call or a
 * name is believed if the guest has that vCPU: what a thread does, and its name, are its owner's.
 */
static void find_host_vcpu(struct thread *t)
{
    struct question q = {.kind = ASK_CALL, .id = t->tid};
    long id = t->ran_last;

    if (id < 0 && ask(&q) == 0 && has_vcpu(t->guest, observer.answer.pid))
        id = observer.answer.pid;
    if (id == UNKNOWN_VCPU || (id >= 0 && t->vcpu != NULL && t->vcpu->id != id)) {
        /* The thread ran two vCPUs: no event tells when it went from one to the other. */
        if (t->vcpu != NULL && t->vcpu->tid == t->tid)
            note_thread(t->vcpu, 0);
        t->vcpu = NULL;
        t->known = MIXED;
    }
    if (t->known == MIXED || t->vcpu != NULL)
        return;
    if (id < 0 && (id = vcpu_by_name(t->guest, t->tid)) >= 0 && !has_vcpu(t->guest, id))
        id = -1;
    if (id < 0 && !view.cut) /* or the guest may have others that were not seen yet */
        id = only_vcpu(t);
    if (id >= 0)
        t->vcpu = vcpu_of(t->guest, id);
}

static bool is_new(const struct thread *t)
{
    return t->is_new;
}

static bool is_active(const struct thread *t)
{
    return t->active;
}

/*
 * Begins a search for the vCPUs of the threads that are wanted() and run one that their events do
 * not tell.  Returns whether there are any.
 */
static bool begin_search(bool (*wanted)(const struct thread *))
{
    bool any = false;

    for (size_t i = 0; i < world.space; i++) {
        struct thread *t = world.threads[i];
        if (t == NULL)
            continue;
        t->sought = t->ran && t->known != TOLD && wanted(t);
        if (t->sought) {
            t->guest->looked_for = any = true;
            t->ran_last = -1;
        }
        t->is_new = false;
    }
    world.any_new = false;
    return any;
}

/* Ends the search: asks, of each thread, what else may tell its vCPU. */
static void end_search(void)
{
    for (size_t i = 0; i < world.space; i++) {
        struct thread *t = world.threads[i];
        if (t == NULL || !t->sought)
            continue;
        source->find_vcpu(t);
        if (t->vcpu != NULL)
            note_thread(t->vcpu, t->tid);
        t->guest->looked_for = false;
    }
}

/* Looks for the vCPUs of new threads, before these may be gone. */
static void find_new_vcpus(void)
{
    if (now(CLOCK_MONOTONIC) < view.next_look || !begin_search(is_new))
        return;
    begin_look(); /* the VM of a new thread may be new, too */
    match_all_threads(true);
    read_vcpus(); /* not before that: it takes longer, and the VM may soon be gone */
    end_look();
    match_all_threads(false);
    end_search();
}

/*
 * Looks, as an interval ends, for the vCPUs of the threads that had events in it, and gives their
 * counts to these, or to the row `?'.
 */
static void find_all_vcpus(void)
{
    if (!begin_search(is_active))
        return;
    match_all_threads(true);
    match_all_threads(false);
    end_search();
    for (size_t i = 0; i < world.space; i++) {
        struct thread *t = world.threads[i];
        if (t == NULL || !t->sought)
            continue;
        struct vcpu *v = t->vcpu != NULL ? t->vcpu : unknown_vcpu(t, t->gone != 0);
        move_tally(&t->pending, &v->tally);
    }
}

/*
 * This host: what part of the time the vCPUs' threads ran, or waited for a CPU (-c).
 */

/* Returns whether it is known which thread runs v, as far as it is known that has not ended. */
static bool has_thread(const struct vcpu *v)
{
    return v->tid > 0 && !v->ended;
}

/* Returns whether an event told which thread runs v. */
static bool is_thread_told(const struct vcpu *v)
{
    const struct thread *t = has_thread(v) ? known_thread(v->tid) : NULL;

    return t != NULL && t->known == TOLD && t->vcpu == v;
}

/* Notes which threads ran the vCPUs of m last, by debugfs, where no event told. */
static void find_last_threads(const struct vm *m)
{
    for (size_t i = 0; i < m->nvcpus; i++) {
        long id = m->vcpus[i];
        struct vcpu *v = has_vcpu(m->guest, id) ? vcpu_of(m->guest, id) : NULL;
        if (v == NULL || is_thread_told(v))
            continue;
        int tid = last_thread(m, id);
        const struct thread *t = known_thread(tid);
        bool mixed = t != NULL && t->known == MIXED;
        if (tid == 0)
            note_thread(v, NO_THREAD);
        else if (tid > 0 && !(v->ended && v->tid == tid)) /* it is the last one, also when ended */
            note_thread(v, mixed ? 0 : tid);
    }
}

/* Notes which threads run the vCPUs of g that nothing else tells, by the threads' names. */
static void find_named_threads(struct guest *g)
{
    struct question q = {.kind = ASK_THREADS, .id = g->pid, .fd = 1};
    bool wanted = false;

    for (size_t i = 0; i < g->nvcpus; i++)
        wanted |= g->vcpus[i]->present && !has_thread(g->vcpus[i]);
    wanted = wanted && !has_gap(g);
    for (; wanted && q.at.thread >= 0 && view.left != 0 && ask(&q) == 0;
         q.at = observer.answer.at) {
        for (size_t i = 0; i < ntold(); i++) {
            const struct descriptor *t = &observer.answer.files[i];
            if (t->id >= 0 && has_vcpu(g, t->id) && !has_thread(vcpu_of(g, t->id)))
                note_thread(vcpu_of(g, t->id), t->tid);
        }
    }
}

/* Returns how many nanoseconds of CPU time process pid has used; 0 if that is not known. */
static uint64_t cpu_time(int pid)
{
    clockid_t clock;
    struct timespec t;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return to_ns(t);
}

/*
 * Returns whether the times of v's thread are to be read.  used is the CPU time of v's process: as
 * long as that stands still, none of its threads ran.
 */
static bool needs_times(const struct vcpu *v, uint64_t used)
{
    return has_thread(v) && (used == 0 || used != v->used || v->read_at == 0);
}

/*
 * Takes the times of v's thread, as read_times() read them, and sets v->shares for the time since
 * that was done before.  NULL: they need not be read; used is as above.  The kernel brings all
 * these up to date when a thread leaves a CPU, and at ticks of its timer: a share may come out
 * larger than the whole.  A thread that has ended may have run until then; after that, the shares
 * are 0.
 */
static void take_times(struct vcpu *v, const uint64_t *read, uint64_t used)
{
    const uint64_t *times = read == NULL || read[RUN] >= ENDED_TIMES ? v->times : read;
    struct birth *birth = birth_of(v->tid);
    bool reborn = birth->is_fresh && birth->tid == v->tid;
    bool known = v->tid != 0 && (read == NULL || read[RUN] < ENDED_TIMES);
    uint64_t time = now(CLOCK_MONOTONIC), elapsed = time - v->read_at;
    bool same = known && v->read_at != 0 && !reborn;

    for (int i = 0; i < NSHARES; i++)
        same &= times[i] >= v->times[i];
    for (int i = 0; i < NSHARES; i++) {
        uint64_t spent = same ? times[i] - v->times[i] : 0;
        v->shares[i] = hundredths_of(spent < elapsed ? spent : elapsed, elapsed);
        v->spent[i] += spent;
        v->times[i] = times[i];
    }
    v->shareless = !same;
    v->read_at = time;
    v->used = used;
    birth->is_fresh &= !reborn;
    if (read != NULL && read[RUN] == ENDED_TIMES)
        v->ended = true;
    else if (!known)
        note_thread(v, 0);
}

/*
 * Sets the shares in the tallies of the n vCPUs at v, MAX_ASKED at most, of process pid, whose CPU
 * time is used.  A report that follows another one at once, as kvmstat was late, has those of that
 * one: so short a time tells nothing.
 */
static void set_shares(int pid, struct vcpu **v, size_t n, uint64_t used)
{
    static const uint64_t none[NSHARES] = {[RUN] = NO_TIMES};
    struct question q = {.kind = ASK_TIMES, .id = pid};

    for (size_t i = 0; i < n; i++) {
        if (needs_times(v[i], used))
            q.ids[q.nids++] = v[i]->tid;
    }
    bool told = q.nids != 0 && ask(&q) == 0;
    for (size_t i = 0, j = 0; i < n; i++) {
        const uint64_t *times = !needs_times(v[i], used) ? NULL
                                : told                   ? observer.answer.times[j++]
                                                         : none;
        bool soon =
            v[i]->read_at != 0 && now(CLOCK_MONOTONIC) - v[i]->read_at < options.interval / 2;
        if (!soon)
            take_times(v[i], times, used);
        memcpy(v[i]->tally.shares, v[i]->shares, sizeof(v[i]->shares));
        v[i]->tally.shareless = v[i]->shareless;
    }
}

/* Notes which threads ran all vCPUs last, where no event told. */
static void find_all_last_threads(void)
{
    for (size_t i = 0; i < view.nvms; i++) {
        if (view.vms[i].guest != NULL && view.vms[i].guest->asked)
            find_last_threads(&view.vms[i]);
    }
}

/* Sets the shares of all vCPUs, in the time since this was done before. */
static void set_all_shares(void)
{
    find_all_last_threads();
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        bool there = g->asked && g->gone == 0;
        if (there)
            find_named_threads(g);
        uint64_t used = there ? cpu_time(g->pid) : 0;
        for (size_t j = 0; j < g->nvcpus; j += MAX_ASKED)
            set_shares(
                g->pid, g->vcpus + j, g->nvcpus - j < MAX_ASKED ? g->nvcpus - j : MAX_ASKED, used);
    }
}

/*
 * This host: what is forgotten because it is gone.
 */

/* Frees g and its vCPUs.  No VM in view.vms is owned by g any more. */
static void free_guest(struct guest *g)
{
    for (size_t i = 0; i < view.nvms; i++) {
        if (view.vms[i].guest == g) {
            view.vms[i].guest = NULL;
            view.vms[i].owner_sure = false;
        }
    }
    for (size_t i = 0; i < g->nvcpus; i++) {
        free(g->vcpus[i]->tally.keys);
        free(g->vcpus[i]);
    }
    world.nvcpus -= g->nvcpus;
    free(g->vcpus);
    free(g->files);
    free(g->read);
    free(g->name);
    free(g->ended_threads.s);
    free(g->all_threads.s);
    free(g);
}

/* Frees the threads that were given tid 0.  No stream has a last event's thread any more. */
static void drop_threads(void)
{
    rebuild_threads(world.space);
    for (size_t i = 0; i < reading.nstreams; i++)
        reading.streams[i].thread = NULL;
}

/*
 * Forgets threads that were found to have ended before the given time, up to which all events are
 * counted.  Finds out whether threads that had no event in this interval have ended.
 */
static void forget_threads(uint64_t end)
{
    size_t dropped = 0;

    for (size_t i = 0; i < world.nguests; i++)
        world.guests[i]->has_threads = false;
    for (size_t i = 0; i < world.space; i++) {
        struct thread *t = world.threads[i];
        if (t == NULL)
            continue;
        if (t->guest != NULL && t->gone == 0 && !t->active && t->last_exit != FAULT) {
            if (t->guest->gone != 0)
                t->gone = t->guest->gone;
            else if (syscall(SYS_tgkill, t->guest->pid, t->tid, 0) != 0 && errno == ESRCH)
                t->gone = now(CLOCK_MONOTONIC);
        }
        if (t->guest == NULL || (t->gone != 0 && t->gone <= end && !t->active)) {
            save_thread(t);
            t->tid = 0;
            dropped++;
        } else {
            t->guest->has_threads = true;
        }
        t->active = false;
    }
    if (dropped != 0)
        drop_threads();
}

/* Forgets guests that were found to have ended before the given time and have no thread left. */
static void forget_guests(uint64_t end)
{
    size_t kept = 0;

    /*
     * All are saved before one is freed: if saving fails, kvmstat ends, and looks at all guests in
     * doing so.
     */
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        g->forgotten = g->gone != 0 && g->gone <= end && !g->has_threads;
        if (g->forgotten)
            save_guest(g);
    }
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        if (g->forgotten)
            free_guest(g);
        else
            world.guests[kept++] = g;
    }
    world.nguests = kept;
}

static const struct source this_host = {
    .read_pages = read_buffer,
    .add_lost = add_overrun,
    .refuse = refuse_buffer,
    .find_comm = find_host_comm,
    .find_pid = host_pid_of,
    .find_thread = find_host_thread,
    .learn_guest = learn_host_guest,
    .find_vcpu = find_host_vcpu,
    .end_former = end_host_former,
    .epoch_offset = host_epoch_offset,
};

/*
 * Writes time, of the trace clock, to the size bytes at buf: as a date in ISO 8601, or as seconds
 * since 1970, with so many decimals.  If nothing relates a recording's clock to 1970, that clock's
 * seconds are shown.
 */
static void format_date(uint64_t time, bool date, int ndecimals, char *buf, size_t size)
{
    char decimals[16] = "", zone[8];
    struct tm tm;

    uint64_t epoch = source->epoch_offset(time), stamp = time + epoch;
    time_t seconds = (time_t)(stamp / NSEC);
    if (ndecimals != 0)
        snprintf(decimals, sizeof(decimals), ".%09u", (unsigned)(stamp % NSEC));
    decimals[ndecimals == 0 ? 0 : ndecimals + 1] = '\0';
    if (!date || epoch == 0) {
        snprintf(buf, size, "%lld%s", (long long)seconds, decimals);
    } else {
        localtime_r(&seconds, &tm);
        size_t n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
        strftime(zone, sizeof(zone), "%z", &tm); /* +hhmm or -hhmm */
        snprintf(buf + n, size - n, "%s%.3s:%s", decimals, zone, zone + 3);
    }
}

/*
 * A recording that is reported (-r), a file of version 6 as trace-cmd.dat.v6(5) describes it.
 * Nothing in the file is trusted: its size limits how much is read, and MAX_MEMORY how much is
 * kept.
 */

#define READ_AHEAD (4u << 20)     /* bytes read at a time, of all CPUs together */
#define MAX_READ_AHEAD (1u << 18) /* bytes read at a time, of one CPU at most */
#define MAX_AT_ONCE (64u << 20)   /* bytes at most, where one sub-buffer of each CPU needs more */
#define MAX_EPOCHS (1u << 10)     /* epochs told apart: the host's clock was set once less */
#ifndef MAX_MEMORY                /* sanitizers need more by far, and all of it */
#define MAX_MEMORY (1u << 30)     /* bytes of kvmstat -r, the program's own included */
#endif

enum {
    MAX_TEXT = 1 << 16, /* bytes of an event's format, or of an option that is used */
    MAX_CPUS = 1 << 14, /* twice as many as the largest kernels support */
    MAX_BUFFERS = 64    /* tracefs instances recorded beside the top one */
};

/* Options in the header.  kvmstat -r skips those not listed: they tell nothing about guests. */
enum option {
    OPTION_END = 0,
    OPTION_DATE = 1,    /* microseconds from 1970 to the trace clock's zero; see put_date() */
    OPTION_BUFFER = 3,  /* offset of the table of an instance's sub-buffers, and its name */
    OPTION_CLOCK = 4,   /* the text of tracefs's trace_clock */
    OPTION_UNAME = 5,   /* the host's system, name, release and machine, by uname(2) */
    OPTION_VERSION = 9, /* the recording program; if kvmstat, also the time it reported */
    OPTION_GUEST = 13   /* a guest's name, process and threads; see save_guest() */
};

/* The magic bytes that a recording begins with; its version follows them. */
static const char dat_magic[] = "\x17\x08\x44tracing";

/*
 * A recording of kvmstat's own that is being made, or was cut, is a journal.  It begins like one of
 * version 6, up to the formats, but for the version.  Then it has checkpoints, one each report, and
 * before each of them the sub-buffers that were read since the one before: runs of some of a CPU,
 * in the order in which they were read.  Numbers are little-endian, of 8 bytes where nothing else
 * is said.  Checkpoints and runs begin at multiples of a sub-buffer's size.
 *
 * A checkpoint is checkpoint_magic, the numbers of enum number, a body, and zeros.  In the body are
 * four parts, each behind the number of its bytes: what was new of the threads' names and of the
 * options, as version 6 has them; of each run the CPU and the number of sub-buffers (4 bytes each);
 * and, unless they are the same as before, GUEST options of the guests that were there then.
 * OPTION_END follows on options.
 */
static const char journal_version[] = "kvmstat";
static const char checkpoint_magic[] = "kvmstat\n"; /* a sub-buffer has its time stamp there */

enum number {
    NEXT,         /* offset of the next checkpoint; 0: there is none yet */
    SUM,          /* checksum() of what follows, but for the zeros */
    SIZE,         /* bytes of the body */
    FROM,         /* start of the first interval ... */
    UNTIL,        /* ... and the time up to which the recording is complete */
    EPOCH_OFFSET, /* nanoseconds from 1970 to the trace clock's zero */
    SYNCED,       /* all before this offset was on the disk when this was written */
    GUESTS,       /* offset of the part with the GUEST options */
    NNUMBERS,
    SUMMED_FROM = 8 + 8 * SIZE,        /* offset of what the checksum is of */
    CHECKPOINT_SIZE = 8 + 8 * NNUMBERS /* offset of the body */
};

/* Returns the checksum (64-bit FNV-1a) of size bytes at p and, before them, what gave sum; 0. */
static uint64_t checksum(uint64_t sum, const void *p, size_t size)
{
    for (const uint8_t *s = p; size > 0; s++, size--)
        sum = (sum ^ *s) * 0x100000001b3u;
    return sum;
}

/* In kvmstat's OPTION_VERSION, before START " to " END: nanoseconds of the trace clock. */
static const char reports_from[] = ", reports from ";

enum { ENTRY_SIZE = 8 }; /* bytes of a GUEST option's entry: vCPU number, thread id */

/* Returns the vCPU number in entry i of a GUEST option, or UNKNOWN_VCPU. */
static long entry_vcpu(const uint8_t *entries, size_t i)
{
    uint64_t id = load(entries + i * ENTRY_SIZE, 4);

    return id == UINT32_MAX ? UNKNOWN_VCPU : (long)id;
}

/* The name of a thread, from the recording's list of them. */
struct command {
    uint64_t tid;  /* thread id */
    char name[16]; /* its name; the kernel keeps no more bytes (TASK_COMM_LEN) */
};

/* The guest and vCPU of a thread, from an entry of a GUEST option. */
struct owner {
    int tid;             /* thread id */
    uint32_t order;      /* place among the recording's entries: a thread's first is right */
    struct guest *guest; /* the thread's process */
    struct vcpu *vcpu;   /* the vCPU that it ran; NULL if the entry does not tell */
    bool mixed;          /* nothing tells which vCPU it ran: MIXED of enum knowledge */
};

/* Where 1970 was for a part of a recording. */
struct epoch {
    uint64_t until;        /* the end of that part, in the trace clock's time */
    uint64_t epoch_offset; /* nanoseconds from 1970 to the trace clock's zero; 0: not told */
};

/* The recording that is reported (-r).  Times are those of its trace clock. */
static struct {
    char *name;               /* its path, escaped for printing */
    int fd;                   /* the open file; or -1 */
    uint64_t size;            /* bytes of the file */
    FILE *header;             /* the same, to read its header */
    uint64_t at;              /* offset of the next byte of the header ... */
    uint64_t next;            /* ... and of the one that header would read */
    uint64_t formats;         /* offset behind the formats in it */
    struct command *commands; /* names of threads, in order of thread id */
    size_t ncommands;         /* number of these names */
    struct owner *owners;     /* owners of threads, in order of thread id */
    size_t nowners;           /* number of these owners */
    uint64_t from;            /* start of the first interval; 0: at the first event */
    uint64_t until;           /* complete up to this time; UINT64_MAX: up to its last event */
    struct epoch epochs[MAX_EPOCHS]; /* what it tells of 1970, in order of time */
    size_t nepochs;                  /* number of epochs: it tells nothing if there is none */
    char clock[16];                  /* name of its trace clock; empty if it does not tell */
    uint64_t total;                  /* bytes of sub-buffers in the tables read up to now */
    bool cut; /* it is a journal: kvmstat did not end in order, or has not ended yet */
} input = {.fd = -1, .until = UINT64_MAX};

/* Ends kvmstat with a message about the byte of the header at input.at. */
static _Noreturn void fail_input(const char *what)
{
    fail("%s: byte %" PRIu64 ": %s (damaged: copy or record it again)", input.name, input.at, what);
}

/* Reads the next size bytes to p; ends kvmstat if the file ends sooner. */
static void take(void *p, size_t size)
{
    if (size > input.size - input.at)
        fail_input("ends too soon");
    bool there = input.at == input.next || fseeko(input.header, (off_t)input.at, SEEK_SET) == 0;
    if (!there || fread(p, 1, size, input.header) != size)
        fail_input(there && feof(input.header) ? "ends too soon" : strerror(errno));
    input.next = input.at += size;
}

/* Skips the next size bytes; ends kvmstat if the file ends sooner. */
static void skip(uint64_t size)
{
    if (size > input.size - input.at)
        fail_input("ends too soon");
    input.at += size;
}

/* Reads and returns the next number, of 1, 2, 4 or 8 bytes. */
static uint64_t take_number(size_t size)
{
    uint8_t bytes[8];

    take(bytes, size);
    return load(bytes, size);
}

/* Reads and returns the next number, of size bytes; ends kvmstat if it is larger than max. */
static uint64_t take_count(size_t size, uint64_t max)
{
    uint64_t n = take_number(size);

    if (n > max)
        fail_input("a number that cannot be");
    return n;
}

/*
 * Reads the next size bytes and returns them with a NUL appended; ends kvmstat if they are more
 * than max.  The caller frees them.
 */
static char *take_text(uint64_t size, uint64_t max)
{
    if (size > max || size >= SIZE_MAX)
        fail_input("longer than it can be");
    char *text = resize(NULL, (size_t)size + 1, 1);
    take(text, (size_t)size);
    text[size] = '\0';
    return text;
}

/* Reads a NUL-terminated string to the size bytes at s; ends kvmstat if it is longer. */
static void take_string(char *s, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((s[i] = (char)take_number(1)) == '\0')
            return;
    }
    fail_input("longer than it can be");
}

/* Reads a NUL-terminated string; ends kvmstat if it is not the wanted one. */
static void expect(const char *wanted)
{
    char s[16];

    take_string(s, strlen(wanted) + 1);
    if (strcmp(s, wanted) != 0)
        fail_input("not what has to be here");
}

/* Ends kvmstat if the file, whose first bytes are at s, is of another kind that is known. */
static void refuse_kind(const char s[static 8])
{
    static const char *const kinds[][2] = {{"\x1f\x8b", "gzip"},
        {"\xfd"
         "7zXZ",
            "xz"},
        {"\x28\xb5\x2f\xfd", "zstd"}, {"BZh", "bzip2"}};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strncmp(s, kinds[i][0], strlen(kinds[i][0])) == 0)
            fail("%s: compressed by %s (decompress it first)", input.name, kinds[i][1]);
    }
    if (strncmp(s, "PERFILE2", 8) == 0)
        fail("%s: of perf record (record with kvmstat -w, or trace-cmd record -e kvm)", input.name);
}

/*
 * Reads the magic bytes, version and byte order, and sets input.cut; ends kvmstat if it cannot read
 * such a file.
 */
static void take_magic(void)
{
    char s[16] = "", version[16];

    if (input.size >= sizeof(dat_magic))
        take(s, strlen(dat_magic));
    refuse_kind(s);
    if (memcmp(s, dat_magic, strlen(dat_magic)) != 0)
        fail("%s: not a recording of trace-cmd or kvmstat", input.name);
    take_string(version, sizeof(version));
    if (strcmp(version, "7") == 0)
        fail(
            "%s: version 7 (make version 6 of it: trace-cmd convert --file-version 6 -i %s -o NEW)",
            input.name, input.name);
    input.cut = strcmp(version, journal_version) == 0;
    if (strcmp(version, "6") != 0 && !input.cut)
        fail("%s: of a version that is not known (it has to be 6)", input.name);
    if (take_count(1, 1) == 1)
        fail("%s: of a big-endian host (kvmstat reads those of little-endian hosts only)",
            input.name);
    take_number(1); /* size of a long in the recording program; not used */
    take_number(4); /* size of a memory page; not used */
}

/* Returns the event of a system that text is the format of; NULL if kvmstat does not know it. */
static struct event_type *event_of_format(const char *system, const char *text)
{
    static const char key[] = "name: ";
    char name[64];

    if (strncmp(text, key, strlen(key)) != 0)
        return NULL;
    text += strlen(key);
    int length = (int)strcspn(text, "\n");
    if (snprintf(name, sizeof(name), "%s/%.*s", system, length, text) >= (int)sizeof(name))
        return NULL;
    for (int i = 0; i < NEVENTS; i++) {
        if (strcmp(events[i].name, name) == 0)
            return &events[i];
    }
    return NULL;
}

/* Reads the format of an event of a system, and keeps it if kvmstat knows the event. */
static void take_format(const char *system)
{
    uint64_t size = take_number(8);

    if (strcmp(system, "kvm") != 0 && strcmp(system, "task") != 0) {
        skip(size);
        return;
    }
    char *text = take_text(size, MAX_TEXT);
    struct event_type *type = event_of_format(system, text);
    if (type != NULL && !parse_format(type, text))
        fail("%s: the format of %s is not understood", input.name, type->name);
    free(text);
}

static int compare_commands(const void *a, const void *b)
{
    const struct command *x = a, *y = b;

    return x->tid < y->tid ? -1 : x->tid > y->tid;
}

/* Reads the threads' names: lines of thread id, blank, name. */
static void take_commands(void)
{
    char *text = take_text(take_number(8), input.size);

    for (char *line = text, *next; *line != '\0'; line = next) {
        const char *rest = line;
        struct command command;
        next = line + strcspn(line, "\n");
        if (*next != '\0')
            *next++ = '\0';
        if (!parse_digits(&rest, INT_MAX, &command.tid) || *rest != ' ')
            continue;
        snprintf(command.name, sizeof(command.name), "%s", rest + 1);
        input.commands = grow(input.commands, input.ncommands, sizeof(command));
        input.commands[input.ncommands++] = command;
    }
    free(text);
}

/* Reads the formats of sub-buffers and events. */
static void take_formats(void)
{
    char system[64];

    expect("header_page");
    char *text = take_text(take_number(8), MAX_TEXT);
    if (!parse_header_page(&reading.page, text))
        fail_input("a description of sub-buffers that is not understood");
    free(text);
    expect("header_event");
    skip(take_number(8));
    for (uint64_t n = take_count(4, UINT16_MAX); n > 0; n--)
        skip(take_number(8)); /* formats of ftrace's own events */
    for (uint64_t systems = take_count(4, UINT16_MAX); systems > 0; systems--) {
        take_string(system, sizeof(system));
        for (uint64_t n = take_count(4, UINT16_MAX); n > 0; n--)
            take_format(system);
    }
    skip(take_number(4)); /* kernel symbols (kallsyms) */
    skip(take_number(4)); /* format strings of trace_printk() */
}

/*
 * A recording: what it tells of guests.
 */

/* Returns whether -p asks for g, by its process or its name, or there is no -p. */
static bool is_asked_for(const struct guest *g)
{
    bool asked = !options.some;

    for (size_t i = 0; i < options.npids; i++)
        asked |= options.pids[i] == g->pid;
    for (size_t i = 0; i < options.nguests; i++)
        asked |= has_name(g, options.guests[i]);
    return asked || has_name(g, options.list);
}

/* Implements source.find_comm: from the recording's list of thread names. */
static bool recall_comm(int tid, char *name, size_t size)
{
    const struct command key = {.tid = (uint64_t)tid}, *known = NULL;

    if (input.ncommands != 0)
        known = bsearch(&key, input.commands, input.ncommands, sizeof(key), compare_commands);
    if (known != NULL)
        snprintf(name, size, "%s", known->name);
    return known != NULL;
}

/* Implements source.learn_guest.  g has its process's name until a GUEST option gives another. */
static void learn_recorded_guest(struct guest *g, uint64_t time)
{
    char name[64];

    (void)time;
    if (options.names || options.nguests != 0)
        g->name = copy(source->find_comm(g->pid, name, sizeof(name)) ? name : "?");
    g->asked = is_asked_for(g);
}

/* Names g, and has it reported if -p asks for that name. */
static void set_name(struct guest *g, const char *name)
{
    if (g->name != NULL && strcmp(g->name, name) == 0)
        return;
    free(g->name);
    g->name = copy(name);
    g->asked |= is_asked_for(g);
}

/*
 * Notes that g has thread tid, which ran v; NULL: the entry does not tell.  In a recording of
 * kvmstat's own, NULL means that kvmstat could not tell either, or that tid ran several vCPUs.
 */
static void add_owner(int tid, struct guest *g, struct vcpu *v, bool own)
{
    input.owners = grow(input.owners, input.nowners, sizeof(*input.owners));
    input.owners[input.nowners] = (struct owner){.tid = tid,
        .order = (uint32_t)input.nowners,
        .guest = g,
        .vcpu = v,
        .mixed = own && v == NULL};
    input.nowners++;
}

static int compare_owners(const void *a, const void *b)
{
    const struct owner *x = a, *y = b;

    if (x->tid != y->tid)
        return x->tid < y->tid ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/*
 * Sorts owners by thread id, and leaves one of each thread.  A thread with several vCPUs of one
 * guest went from one to another, and is mixed.  A thread id with several guests was used again,
 * and is taken for the first guest's.
 */
static void sort_owners(void)
{
    size_t kept = 0;

    if (input.nowners > 1)
        qsort(input.owners, input.nowners, sizeof(*input.owners), compare_owners);
    for (size_t i = 0; i < input.nowners; i++) {
        struct owner *o = &input.owners[i], *first = kept == 0 ? NULL : &input.owners[kept - 1];
        if (first == NULL || first->tid != o->tid) {
            input.owners[kept++] = *o;
        } else if (first->guest == o->guest && first->vcpu == NULL) {
            first->vcpu = o->vcpu;
            first->mixed = o->mixed;
        } else if (first->guest == o->guest && o->vcpu != NULL && o->vcpu != first->vcpu) {
            first->mixed = true;
        }
    }
    input.nowners = kept;
}

/* Returns what the GUEST options tell of thread tid; NULL if they do not name it. */
static const struct owner *owner_of(int tid)
{
    size_t i;

    FIND_PLACE(i, input.nowners, input.owners[i].tid < tid);
    return i < input.nowners && input.owners[i].tid == tid ? &input.owners[i] : NULL;
}

/* Reads the body of an OPTION_GUEST, which ends at offset end; save_guest() has its layout. */
static void take_guest(uint64_t end)
{
    char name[MAX_TEXT];

    take_string(name, sizeof(name));
    cut_name(name);
    uint64_t pid = take_number(8), n = take_number(4);
    if (input.at > end || n > (end - input.at) / ENTRY_SIZE)
        fail_input("more than its option can have");
    uint8_t *entries = (uint8_t *)take_text(n * ENTRY_SIZE, input.size);
    bool own = end - input.at >= n * 16 && input.until != UINT64_MAX; /* kvmstat wrote this */
    for (size_t i = 0; i < n; i++) {
        long id = entry_vcpu(entries, i);
        uint64_t tid = load(entries + i * ENTRY_SIZE + 4, 4);
        uint64_t first = own ? take_number(8) : 0, last = own ? take_number(8) : UINT64_MAX;
        /* trace-cmd has a random trace id for the pid: each thread is then shown as a process. */
        uint64_t process = pid > 0 && pid <= INT_MAX ? pid : tid;
        if (process == 0 || tid > INT_MAX)
            continue;
        struct guest *g = guest_of((int)process, 0);
        struct vcpu *v = id == UNKNOWN_VCPU ? NULL : vcpu_of(g, id);
        set_name(g, name);
        if (tid != 0)
            add_owner((int)tid, g, v, own);
        if (v != NULL) {
            v->first = own && first == 0 ? UINT64_MAX : first; /* UINT64_MAX: never present */
            v->last = last;
        }
    }
    free(entries);
    /* kvmstat 1.3 and later appends the ids of the threads whose vCPU nothing told. */
    for (uint64_t m = own && end - input.at >= 4 ? take_number(4) : 0; m > 0; m--) {
        uint64_t tid = take_number(4);
        if (pid > 0 && pid <= INT_MAX && tid > 0 && tid <= INT_MAX) {
            struct guest *g = guest_of((int)pid, 0);
            set_name(g, name);
            add_owner((int)tid, g, NULL, true);
        }
    }
}

/*
 * Implements source.find_pid, by the thread's birth.  If a GUEST option has the thread, and the
 * birth's process is no known guest, the option tells.  A thread that has neither is shown as a
 * process of its own.
 */
static int recalled_pid_of(int tid, uint64_t time)
{
    const struct birth *b = birth_of(tid);
    const struct owner *o = owner_of(tid);

    (void)time;
    if (b->tid == tid && (o == NULL || known_guest(b->pid) != NULL))
        return b->pid;
    return o != NULL ? o->guest->pid : tid;
}

/* Implements source.find_thread. */
static struct thread *recall_thread(int tid, uint64_t time)
{
    struct thread *t = known_thread(tid);

    (void)time;
    if (t != NULL && t->guest != NULL)
        return t;
    const struct owner *o = owner_of(tid);
    struct guest *g = guest_of(pid_of(tid, 0), 0);
    t = thread_of(tid, g);
    if (o != NULL && o->guest == g) { /* else the thread id was used again */
        t->vcpu = o->mixed ? NULL : o->vcpu;
        t->known = o->mixed ? MIXED : UNTOLD;
    }
    return t;
}

/* Implements source.find_vcpu: by GUEST option, by the thread's name, or the only vCPU. */
static void recall_vcpu(struct thread *t)
{
    long id = -1;

    if (t->known == MIXED || t->vcpu != NULL)
        return;
    if ((id = vcpu_by_name(t->guest, t->tid)) < 0)
        id = only_vcpu(t);
    if (id >= 0)
        t->vcpu = vcpu_of(t->guest, id);
}

/*
 * Implements source.end_former.  The GUEST options give a thread id to one guest for the whole
 * recording.  That holds until a task_newtask gives the id to another known guest.
 */
static void end_recorded_former(int child, int pid, uint64_t time)
{
    struct thread *t = known_thread(child);

    (void)time;
    if (t != NULL && t->guest != NULL && t->guest->pid != pid && known_guest(pid) != NULL)
        end_thread(t);
}

/*
 * Sets which vCPUs are present in the interval from start to end.  kvmstat's GUEST options tell
 * when each vCPU was.  A vCPU of trace-cmd's GUEST options is present in all intervals, any other
 * from its first event on.
 */
static void recall_present(uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        for (size_t j = 0; j < g->nvcpus; j++) {
            struct vcpu *v = g->vcpus[j];
            set_present(v,
                v->id != UNKNOWN_VCPU && (v->first == 0 || (v->first <= end && v->last > start)));
        }
    }
}

/*
 * A recording: its options, and the CPUs' sub-buffers.
 */

/* Sets input.from and input.until if text, that of an OPTION_VERSION, is kvmstat's. */
static void take_version(const char *text)
{
    const char *s = strstr(text, reports_from);

    if (s == NULL)
        return;
    s += strlen(reports_from);
    if (!parse_digits(&s, INT64_MAX, &input.from) || strncmp(s, " to ", 4) != 0 ||
        (s += 4, !parse_digits(&s, INT64_MAX, &input.until)) || input.until < input.from)
        fail_input("reports from and to times that cannot be");
}

/*
 * Notes that up to a time, and from the one noted before on, 1970 is epoch_offset nanoseconds
 * before the trace clock's zero.  If there are too many such times, nothing tells of those that
 * follow.
 */
static void note_epoch(uint64_t until, uint64_t epoch_offset)
{
    struct epoch *last = &input.epochs[input.nepochs == 0 ? 0 : input.nepochs - 1];

    if (input.nepochs == MAX_EPOCHS && last->epoch_offset != epoch_offset)
        *last = (struct epoch){.until = UINT64_MAX};
    else if (input.nepochs != 0 && last->epoch_offset == epoch_offset)
        last->until = until;
    else
        input.epochs[input.nepochs++] = (struct epoch){until, epoch_offset};
}

/* Sets input.epochs by text, that of an OPTION_DATE. */
static void take_date(const char *text)
{
    char *s = (char *)text;

    input.nepochs = 0;
    do {
        uint64_t epoch_offset = strtoull(s, &s, 0) * 1000;
        note_epoch(*s == ' ' ? strtoull(s + 1, &s, 10) : UINT64_MAX, epoch_offset);
    } while (*s == ' ');
}

/* Reads the body of an OPTION_VERSION, OPTION_DATE or OPTION_CLOCK: a text of size bytes. */
static void take_text_option(uint64_t option, uint64_t size)
{
    char *text = take_text(size, MAX_TEXT);
    const char *clock = strchr(text, '[');

    if (option == OPTION_VERSION)
        take_version(text);
    else if (option == OPTION_DATE)
        take_date(text);
    else if (clock != NULL)
        snprintf(input.clock, sizeof(input.clock), "%.*s", (int)strcspn(clock + 1, "]"), clock + 1);
    free(text);
}

/* Reads the options.  Puts the offsets of instances' tables in buffers; returns their number. */
static size_t take_options(uint64_t buffers[static MAX_BUFFERS])
{
    size_t nbuffers = 0;
    uint64_t option;

    while ((option = take_number(2)) != OPTION_END) {
        uint64_t size = take_number(4), end = input.at + size;
        if (size > input.size - input.at)
            fail_input("an option that is longer than the file");
        switch (option) {
        case OPTION_CLOCK:
        case OPTION_DATE:
        case OPTION_VERSION: take_text_option(option, size); break;
        case OPTION_GUEST: take_guest(end); break;
        case OPTION_BUFFER:
            if (nbuffers == MAX_BUFFERS)
                fail_input("more buffers than can be read");
            buffers[nbuffers++] = take_number(8);
        }
        if (input.at > end)
            fail_input("more than its option can have");
        input.at = end;
    }
    return nbuffers;
}

/* Adds a stream of a CPU and returns it; ends kvmstat if there are too many. */
static struct stream *add_stream(int cpu)
{
    if (reading.nstreams == MAX_CPUS || (reading.nstreams + 1) * reading.page.size > MAX_AT_ONCE)
        fail_input("sub-buffers of more CPUs than can be read at a time");
    reading.streams = grow(reading.streams, reading.nstreams, sizeof(*reading.streams));
    struct stream *s = &reading.streams[reading.nstreams++];
    *s = (struct stream){.cpu = cpu, .fd = input.fd, .ready = true};
    return s;
}

/* Adds size bytes of sub-buffers at offset at to those of s. */
static void add_run(struct stream *s, uint64_t at, uint64_t size)
{
    struct run *last = s->nruns == 0 ? NULL : &s->runs[s->nruns - 1];

    if (last != NULL && last->at + last->size == at) {
        last->size += size;
        return;
    }
    s->runs = grow(s->runs, s->nruns, sizeof(*s->runs));
    s->runs[s->nruns++] = (struct run){at, size};
}

/* Reads an instance's table of sub-buffers of ncpus CPUs; makes a stream of each CPU with some. */
static void take_table(uint64_t ncpus)
{
    for (uint64_t cpu = 0; cpu < ncpus; cpu++) {
        uint64_t at = take_number(8), size = take_number(8);
        if (size == 0)
            continue;
        input.total += size;
        if (at > input.size || size > input.size - at || input.total > input.size)
            fail_input("sub-buffers past the end of the file, or twice in it");
        if (size % reading.page.size != 0)
            fail_input("a part of a sub-buffer");
        add_run(add_stream((int)cpu), at, size);
    }
}

/* Reads what follows the threads' names: the options, and the tables of sub-buffers. */
static void take_buffers(void)
{
    uint64_t ncpus = take_count(4, MAX_CPUS), buffers[MAX_BUFFERS];
    size_t nbuffers = 0;
    char kind[10];

    take_string(kind, sizeof(kind));
    if (strcmp(kind, "options  ") == 0) {
        nbuffers = take_options(buffers);
        take_string(kind, sizeof(kind));
    }
    if (strcmp(kind, "latency  ") == 0)
        fail("%s: a text, no events (make one with trace-cmd record)", input.name);
    if (strcmp(kind, "flyrecord") != 0)
        fail_input("not what has to be here");
    take_table(ncpus);
    for (size_t i = 0; i < nbuffers; i++) {
        input.at = 0;
        skip(buffers[i]);
        expect("flyrecord");
        take_table(ncpus);
    }
}

/*
 * A recording: a journal.
 */

/* Where a checkpoint is, and what it has. */
struct checkpoint {
    uint64_t at;           /* offset of the checkpoint */
    uint64_t data;         /* offset of the sub-buffers before it */
    uint64_t options;      /* offset of its part with the options ... */
    uint64_t runs;         /* ... and of that with the runs */
    uint64_t end;          /* offset behind its body */
    uint64_t is[NNUMBERS]; /* its numbers */
};

/* Returns at, or the next multiple of a sub-buffer's size. */
static uint64_t round_up(uint64_t at)
{
    return (at + reading.page.size - 1) / reading.page.size * reading.page.size;
}

/* Sets p->is and p->end from the checkpoint at p->at.  Returns false if there is no whole one. */
static bool is_checkpoint(struct checkpoint *p)
{
    uint8_t piece[1 << 12];
    uint64_t sum = 0;

    if (p->at > input.size || input.size - p->at < CHECKPOINT_SIZE)
        return false;
    input.at = p->at;
    take(piece, 8);
    for (int i = 0; i < NNUMBERS; i++)
        p->is[i] = take_number(8);
    if (memcmp(piece, checkpoint_magic, 8) != 0 || p->is[SIZE] > input.size - input.at)
        return false;
    p->end = input.at + p->is[SIZE];
    for (input.at = p->at + SUMMED_FROM; input.at < p->end;) {
        size_t n = p->end - input.at < sizeof(piece) ? (size_t)(p->end - input.at) : sizeof(piece);
        take(piece, n);
        sum = checksum(sum, piece, n);
    }
    return sum == p->is[SUM];
}

/*
 * Sets *p, the place of a checkpoint or of the header's end, to that of the next checkpoint.
 * Returns false, and leaves *p, if there is no whole one.
 */
static bool next_checkpoint(struct checkpoint *p)
{
    struct checkpoint q = {.at = p->is[NEXT], .data = round_up(p->end)};
    uint64_t pages = 0;

    if (q.at < q.data || !is_checkpoint(&q))
        return false;
    input.at = q.at + CHECKPOINT_SIZE;
    skip(take_number(8));
    q.options = input.at;
    skip(take_number(8));
    q.runs = input.at;
    for (uint64_t n = take_number(8) / 8; n > 0; n--) {
        take_count(4, MAX_CPUS - 1);
        pages += take_number(4);
    }
    /* The options are a size and, at the least, an OPTION_END. */
    if (input.at > q.end || q.runs - q.options < 8 + 2 || q.is[FROM] > q.is[UNTIL] ||
        q.is[UNTIL] > INT64_MAX || pages > input.size || pages * reading.page.size != q.at - q.data)
        fail_input("a checkpoint that cannot be");
    *p = q;
    return true;
}

/* Returns whether all sub-buffers before checkpoint p came to the disk. */
static bool is_complete(const struct checkpoint *p)
{
    const struct field *time = &reading.page.time;
    uint8_t stamp[8] = {0};
    bool complete = true;

    for (uint64_t at = p->data; at < p->at && complete; at += reading.page.size)
        complete =
            pread(input.fd, stamp, 8, (off_t)(at + time->offset)) == 8 && load(stamp, 8) != 0;
    return complete;
}

/*
 * Returns the offset of the journal's last checkpoint whose sub-buffers are all there; start is the
 * place of the header's end.  After a power cut, of what was written last, some may be missing.
 * Ends kvmstat if there is none.
 */
static uint64_t last_checkpoint(struct checkpoint start)
{
    struct checkpoint p = start;
    uint64_t synced, last = 0;

    while (next_checkpoint(&p))
        ;
    synced = p.is[SYNCED];
    for (p = start; next_checkpoint(&p) && (p.at < synced || is_complete(&p));)
        last = p.at;
    if (last == 0)
        fail_input("ends too soon");
    return last;
}

/* Returns the place of the header's end, which is input.at. */
static struct checkpoint journal_start(void)
{
    return (struct checkpoint){.end = input.at, .is = {[NEXT] = round_up(input.at)}};
}

/* Reads what follows the formats in a journal, and says that it is one. */
static void take_journal(void)
{
    static size_t stream_of[MAX_CPUS]; /* indices in reading.streams, plus 1 */
    struct checkpoint p = journal_start();
    uint64_t last = last_checkpoint(p), buffers[MAX_BUFFERS];
    char date[64];

    if (reading.page.size < 256)
        fail_input("a description of sub-buffers that is not understood");
    while (p.at != last && next_checkpoint(&p)) {
        input.from = p.is[FROM];
        input.until = p.is[UNTIL];
        note_epoch(p.is[UNTIL], p.is[EPOCH_OFFSET]);
        input.at = p.at + CHECKPOINT_SIZE;
        take_commands();
        input.at = p.options + 8;
        take_options(buffers);
        input.at = p.runs;
        for (uint64_t n = take_number(8) / 8, at = p.data; n > 0; n--) {
            uint64_t cpu = take_number(4), size = take_number(4) * reading.page.size;
            if (stream_of[cpu] == 0) {
                add_stream((int)cpu);
                stream_of[cpu] = reading.nstreams;
            }
            if (size != 0)
                add_run(&reading.streams[stream_of[cpu] - 1], at, size);
            at += size;
        }
    }
    input.at = 0;
    skip(p.is[GUESTS]);
    skip(8);
    take_options(buffers);
    format_date(input.until, true, 0, date, sizeof(date));
    complain(
        "%s: it was cut, or is still being made: this is what it has up to %s", input.name, date);
    reading.lossy = true;
}

/* Implements source.refuse: ends kvmstat. */
static void refuse_recording(struct stream *s, const char *what)
{
    fail("%s: CPU %d: %s (damaged: copy or record it again)", input.name, s->cpu, what);
}

/* Returns whether none of the size bytes of sub-buffers at p never came to the disk. */
static bool are_there(const uint8_t *p, size_t size)
{
    bool there = true;

    for (size_t i = 0; i < size; i += reading.page.size)
        there &= load(p + i + reading.page.time.offset, 8) != 0;
    return there;
}

/* Implements source.read_pages: reads up to reading.chunk bytes; ends kvmstat if it cannot. */
static bool read_recorded(struct stream *s)
{
    ssize_t size;

    if (s->left == 0 && s->run == s->nruns)
        return false;
    if (s->left == 0) {
        s->at = s->runs[s->run].at;
        s->left = s->runs[s->run++].size;
    }
    size_t wanted = s->left < reading.chunk ? (size_t)s->left : reading.chunk;
    if (s->pages == NULL)
        s->pages = resize(NULL, reading.chunk, 1);
    do
        size = pread(s->fd, s->pages, wanted, (off_t)s->at);
    while (size < 0 && errno == EINTR);
    if (size != (ssize_t)wanted || (input.cut && !are_there(s->pages, wanted)))
        refuse_recording(s, size < 0 ? strerror(errno) : "ends too soon");
    s->nbytes = wanted;
    s->used = 0;
    s->at += wanted;
    s->left -= wanted;
    return true;
}

/* Implements source.add_lost: by the sub-buffer's header, which may not tell the number. */
static void add_recorded_loss(struct stream *s)
{
    s->lost += s->subbuf.lost;
    s->lost_more |= s->subbuf.lost == 0;
}

/* Implements source.epoch_offset. */
static uint64_t recorded_epoch_offset(uint64_t time)
{
    size_t i = 0;

    while (i + 1 < input.nepochs && time > input.epochs[i].until)
        i++;
    return input.epochs[i].epoch_offset;
}

/* Returns the time stamp of the recording's next event; UINT64_MAX if there is none. */
static uint64_t next_time(void)
{
    uint64_t time = UINT64_MAX;

    for (size_t i = 0; i < reading.nstreams; i++) {
        const struct stream *s = &reading.streams[i];
        if (s->has_next && s->next.time < time)
            time = s->next.time;
    }
    return time;
}

/* Returns the latest time stamp of the events that were read; 0 if there was none. */
static uint64_t last_time(void)
{
    uint64_t time = 0;

    for (size_t i = 0; i < reading.nstreams; i++) {
        if (reading.streams[i].subbuf.time > time)
            time = reading.streams[i].subbuf.time;
    }
    return time;
}

/*
 * Returns whether the recording has a kvm_exit or kvm_entry, which only a hardware backend fires.
 * Reads copies of the streams; the streams themselves stay unread.
 */
static bool has_hardware_event(void)
{
    bool found = false;

    for (size_t i = 0; i < reading.nstreams && !found; i++) {
        struct stream s = reading.streams[i];
        while (!found && fill(&s)) {
            int id = event_id(&s.next);
            found = id != 0 && (id == events[KVM_EXIT].id || id == events[KVM_ENTRY].id);
        }
        free(s.pages);
    }
    reading.gap = 0;
    return found;
}

/* Opens the recording; ends kvmstat if it is not a regular file or cannot be read. */
static void open_input(void)
{
    struct stat st = {.st_mode = 0};

    input.name = escaped(options.read);
    int fd = open(options.read, O_PATH | O_CLOEXEC); /* to open a device to read may do something */
    if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
        fail("%s: %s", input.name,
            S_ISFIFO(st.st_mode)
                ? "a pipe, and -r has to read at any place (write it to a file first)"
                : "not a regular file (give -r a recording)");
    if (fd >= 0 && (input.fd = open(path_of("/proc/self/fd/%d", fd), O_RDONLY | O_CLOEXEC)) < 0 &&
        errno == ENOENT)
        input.fd = open(options.read, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* no procfs is there */
    if (input.fd < 0 || (input.header = fdopen(input.fd, "r")) == NULL)
        fail("%s: %s (give -r a recording)", input.name, strerror(errno));
    close(fd);
    input.size = (uint64_t)st.st_size;
}

/*
 * Reads the recording's header, makes the streams ready to be read, and chooses the events that
 * the table needs.  Ends kvmstat if it cannot report the recording.
 */
static void read_header(void)
{
    take_magic();
    take_formats();
    input.formats = input.at;
    if (input.cut) {
        take_journal();
    } else {
        take_commands();
        take_buffers();
    }
    if (input.ncommands > 1)
        qsort(input.commands, input.ncommands, sizeof(struct command), compare_commands);
    sort_owners();
    bool countless = strcmp(input.clock, "counter") == 0 || strcmp(input.clock, "x86-tsc") == 0 ||
                     strcmp(input.clock, "ppc-tb") == 0;
    if (countless && (options.interval != 0 || options.stamp != 0 || options.table != USUAL))
        fail("%s: its trace clock, %s, does not tell nanoseconds (leave interval, -e and -T out)",
            input.name, input.clock);
    reading.heap = resize(NULL, reading.nstreams + 1, sizeof(struct stream *));
    size_t ahead = READ_AHEAD / (reading.nstreams + 1);
    ahead = ahead > MAX_READ_AHEAD ? MAX_READ_AHEAD : ahead;
    reading.chunk =
        ahead > reading.page.size ? ahead - ahead % reading.page.size : reading.page.size;
    /* Only x86 has a software backend; of others, the kvm_exit need not have occurred. */
    bool no_exit = events[KVM_EXIT].id == 0 ||
                   (events[KVM_EXIT].fields[ISA].size != 0 && !has_hardware_event());
    bool software = events[KVM_USERSPACE_EXIT].id != 0 && no_exit;
    const char *missed = choose_events(software);
    if (missed != NULL)
        fail("%s: has no %s (record with kvmstat -w%s%s, or trace-cmd record -e kvm)", input.name,
            missed, options.table == USUAL ? "" : " -e ", tables[options.table].name);
    check_reasons(input.name);
}

static const struct source recorded_host = {
    .read_pages = read_recorded,
    .add_lost = add_recorded_loss,
    .refuse = refuse_recording,
    .find_comm = recall_comm,
    .find_pid = recalled_pid_of,
    .find_thread = recall_thread,
    .learn_guest = learn_recorded_guest,
    .find_vcpu = recall_vcpu,
    .end_former = end_recorded_former,
    .epoch_offset = recorded_epoch_offset,
};

/*
 * The table, and what is said of it on stderr.
 */

/* What a vCPU's numbers say in a word (-c).  A guest has the highest of its vCPUs'. */
enum state { GONE, STILL, IDLE, BUSY, STARVED, SPINS };

/* A vCPU that is reported; with -s, the first one of a guest, whose tally has the sums then. */
struct row {
    const struct guest *guest; /* the guest that has the vCPU; -ss: NULL */
    struct vcpu *vcpu;         /* the vCPU */
    enum state state;          /* its state */
    uint64_t nvcpus;           /* number of vCPUs in it, without `?' */
    uint64_t nguests;          /* number of guests in it */
    uint64_t value;            /* -k: what it has in that column */
    size_t place;              /* -k: its place in order of pid and vCPU */
};

/*
 * The columns of a line, but for the guest's name, which is the last one: first those that all
 * tables have, then the counters in the order of enum counter and, with -c, the shares and the
 * state or, with -e, the columns of a key.
 */
enum {
    COLUMN_TIME,
    COLUMN_PID,
    COLUMN_VCPU,
    FIRST_COUNT,
    COLUMN_KEY = FIRST_COUNT,
    COLUMN_COUNT,
    COLUMN_COUNT_SHARE,
    COLUMN_TIME_SHARE,
    COLUMN_MIN,
    COLUMN_MAX,
    COLUMN_AVERAGE,
    NKEYCOLUMNS,
    FIRST_SHARE = FIRST_COUNT + NCOUNTERS,
    COLUMN_STATE = FIRST_SHARE + NSHARES,
    NCOLUMNS
};

/* A column. */
struct column {
    const char *name;    /* its header */
    int width;           /* minimum in characters: of numbers or, if < 0, of words, on the left */
    char before;         /* character before the column, as `|'; a blank: none */
    const char *meaning; /* help text for -h and -m; NULL: none */
};

/* The columns of the usual table, in the order of a line; time is shown with -T only. */
static const struct column counter_columns[NCOLUMNS] = {
    [COLUMN_TIME] = {"time", 4, ' ', NULL},
    [COLUMN_PID] = {"pid", 6, ' ', "the process that has the virtual machine"},
    [COLUMN_VCPU] = {"vcpu", 4, ' ', "the virtual CPU's number; ? if nothing tells it"},
    [FIRST_COUNT + EXITS] = {"exits", 6, '|', "exits from guest to hypervisor, for any reason"},
    [FIRST_COUNT + HALTX] = {"haltx", 6, ':', "exits because the guest halted"},
    [FIRST_COUNT + IRQX] = {"irqx", 6, ' ', "exits because an interrupt for the host came"},
    [FIRST_COUNT + IRQWX] = {"irqwx", 6, ' ',
        "interrupt-window exits: the guest can now take a pending interrupt"},
    [FIRST_COUNT + IOX] = {"iox", 6, ' ', "exits for port I/O"},
    [FIRST_COUNT + MMIOX] = {"mmiox", 6, ' ', "exits for memory-mapped I/O"},
    [FIRST_COUNT + IRQS] = {"irqs", 6, '|', "interrupts injected into the guest"},
    [FIRST_COUNT + EMUL] = {"emul", 6, ' ', "instructions emulated"},
    [FIRST_COUNT + EPTV] = {"eptv", 6, ' ', "exits for extended (nested) page table violations"},
    [FIRST_SHARE + RUN] = {"run%", 6, '|', "part of the time that the vCPU's thread ran (-c)"},
    [FIRST_SHARE + WAIT] = {"wait%", 6, ' ', "part of the time that it had to wait for a CPU (-c)"},
    [COLUMN_STATE] = {"state", -7, ' ',
        "gone, still, spins, starved, busy or idle, by these numbers (-c)"},
};

/* The columns of -e.  time, pid and vcpu mean what they do above; tables[] has the key's name. */
static const struct column key_columns[NKEYCOLUMNS] = {
    [COLUMN_TIME] = {"time", 4, ' ', NULL},
    [COLUMN_PID] = {"pid", 6, ' ', NULL},
    [COLUMN_VCPU] = {"vcpu", 4, ' ', NULL},
    [COLUMN_KEY] = {NULL, -15, '|', NULL},
    [COLUMN_COUNT] = {"count", 7, ' ', "how often"},
    [COLUMN_COUNT_SHARE] = {"count%", 7, ' ', "its share in the counts of the vCPU's rows"},
    [COLUMN_TIME_SHARE] = {"time%", 7, ' ', "its share in their times"},
    [COLUMN_MIN] = {"min us", 8, ' ', "the shortest time, in microseconds"},
    [COLUMN_MAX] = {"max us", 8, ' ', "the longest time"},
    [COLUMN_AVERAGE] = {"avg us", 8, ' ', "the mean time"},
};

/*
 * The rows of a report, which choose_rows() has: list_rows() makes one of each vCPU that has_row(),
 * or with -m that is_instance(), in order of process and vCPU; sum_rows() makes those of -s of
 * them; -z leaves some out, order_rows() sorts the rest for -k, and -l cuts it off.  With -e, each
 * row has a line for each key, which put_rows() sorts, and put_row() cuts off.
 */

/* -ss: its tally has the sums of all that is reported, until clear_counts(). */
static struct vcpu host_sums;

/* Returns whether something counted in t, in the table that is reported. */
static bool has_counts(const struct tally *t)
{
    bool counted = t->nkeys != 0;

    for (int i = 0; i < NCOUNTERS && options.table == USUAL; i++)
        counted |= t->counts[i] != 0;
    return counted;
}

/* Returns whether v, a vCPU of g, has a row: -p asks for g, and v is present or has counts. */
static bool has_row(const struct guest *g, const struct vcpu *v)
{
    return g->asked && (has_counts(&v->tally) || (g->gone == 0 && v->present));
}

/* Returns what v's numbers say, as a row shows them: in tenths of a per cent. */
static enum state state_of(const struct vcpu *v)
{
    const struct tally *t = &v->tally;
    uint64_t run = t->shares[RUN] / 10, wait = t->shares[WAIT] / 10;

    if (run + wait == 0 && !has_counts(t))
        return v->ended ? GONE : STILL;
    /* Who ran for too short a time to make an exit may do anything. */
    if (run + wait >= 900 && run >= 100 && t->counts[EXITS] == t->counts[IRQX])
        return SPINS;
    if (wait >= 200)
        return STARVED;
    return run + wait >= 500 ? BUSY : IDLE;
}

/*
 * Puts a row for each vCPU for which wanted() is true in *rows, which is NULL or an earlier list
 * that is replaced, with room for one at least.  Returns the number of rows.
 */
static size_t list_rows(
    struct row **rows, bool (*wanted)(const struct guest *, const struct vcpu *))
{
    size_t n = 0;

    *rows = resize(*rows, world.nvcpus + 1, sizeof(**rows));
    for (size_t i = 0; i < world.nguests; i++) {
        const struct guest *g = world.guests[i];
        for (size_t j = 0; j < g->nvcpus; j++) {
            struct vcpu *v = g->vcpus[j];
            if (wanted(g, v))
                (*rows)[n++] = (struct row){.guest = g,
                    .vcpu = v,
                    .state = state_of(v),
                    .nvcpus = v->id != UNKNOWN_VCPU,
                    .nguests = 1};
        }
    }
    return n;
}

/*
 * Sums up the n rows, which are in order of guests, to one for each guest or, with -ss, to one, for
 * which there is room even if n is 0.  Returns their number.
 */
static size_t sum_rows(struct row *rows, size_t n)
{
    struct row host = {.vcpu = &host_sums, .state = n == 0 ? STILL : GONE},
               *sum = options.sums > 1 ? &host : NULL;
    const struct guest *last = NULL;
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        struct row row = rows[i];
        bool same = row.guest == last;
        last = row.guest;
        if (options.sums == 1 && !same) {
            *(sum = &rows[kept++]) = row;
            continue;
        }
        move_tally(&row.vcpu->tally, &sum->vcpu->tally);
        sum->state = row.state > sum->state ? row.state : sum->state;
        sum->nvcpus += row.nvcpus;
        sum->nguests += !same;
    }
    if (options.sums > 1)
        rows[kept++] = host;
    return kept;
}

/* For qsort(): the order of -k; rows that are equal in it stay in that of process and vCPU. */
static int compare_rows(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* Orders the n rows as -k says. */
static void order_rows(struct row *rows, size_t n)
{
    int i = FIRST_COUNT;

    while (strcmp(counter_columns[i].name, options.order) != 0)
        i++;
    for (size_t j = 0; j < n; j++) {
        const struct tally *t = &rows[j].vcpu->tally;
        rows[j].value = i < FIRST_SHARE ? t->counts[i - FIRST_COUNT] : t->shares[i - FIRST_SHARE];
        rows[j].place = j;
    }
    if (n > 1)
        qsort(rows, n, sizeof(*rows), compare_rows);
}

/* Makes of the n rows of list_rows() those that are reported.  Returns their number. */
static size_t choose_rows(struct row *rows, size_t n)
{
    size_t kept = 0;

    if (options.sums != 0)
        n = sum_rows(rows, n);
    for (size_t i = 0; i < n; i++) {
        if (!options.no_zeros || has_counts(&rows[i].vcpu->tally))
            rows[kept++] = rows[i];
    }
    if (options.order != NULL && options.table == USUAL)
        order_rows(rows, kept);
    if (options.rows != 0 && options.rows < kept && options.table == USUAL)
        kept = (size_t)options.rows;
    return kept;
}

/* Clears all vCPUs' counts for the next interval. */
static void clear_counts(void)
{
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        for (size_t j = 0; j < g->nvcpus; j++) {
            clear_tally(&g->vcpus[j]->tally);
            g->vcpus[j]->recent = g->vcpus[j]->present;
        }
    }
    clear_tally(&host_sums.tally);
}

/* Writes t to stdout.  Ends kvmstat if that fails, its reader is gone, or a signal stops it. */
static void write_out(const struct text *t)
{
    int error = t->size == 0 ? 0 : write_patiently(STDOUT_FILENO, t->s, t->size);

    if (error == EINTR)
        leave_by_signal(signalled);
    if (error == EPIPE)
        leave_by_signal(SIGPIPE);
    if (error != 0)
        fail("stdout: %s", strerror(error));
}

/* Writes the text of -T for end, a time of the trace clock, to buf; without -T, an empty text. */
static void format_time(uint64_t end, char *buf, size_t size)
{
    buf[0] = '\0';
    if (options.stamp != 0)
        format_date(end, options.stamp == 'd', options.decimals, buf, size);
}

/*
 * Writes to the size bytes at buf what each line begins with, for the interval from start to end:
 * the text of -T, or an empty one; with -j, that and the interval's seconds, members of an object.
 */
static void format_stamp(uint64_t start, uint64_t end, char *buf, size_t size)
{
    char text[48], seconds[32];

    if (!options.json) {
        format_time(end, buf, size);
        return;
    }
    format_time(end, text, sizeof(text));
    const char *quote = strchr(text, 'T') != NULL ? "\"" : ""; /* a date; else a number */
    int n = snprintf(seconds, sizeof(seconds), "%" PRIu64 ".%09u", (end - start) / NSEC,
        (unsigned)((end - start) % NSEC));
    while (seconds[n - 1] == '0')
        n--;
    n -= seconds[n - 1] == '.';
    snprintf(buf, size, "\"time\":%s%s%s,\"interval\":%.*s", quote, text, quote, n, seconds);
}

/* A line of the report: the cells of all columns but the guest's name. */
struct line {
    const char *cells[NCOLUMNS]; /* the cells' texts; that of time is empty without -T */
    char room[NCOLUMNS][48];     /* memory for texts that are made for this line */
};

/* Returns the columns of the table that is reported, and sets *n to their number. */
static const struct column *table_columns(int *n)
{
    *n = options.table != USUAL ? NKEYCOLUMNS : options.shares ? NCOLUMNS : FIRST_SHARE;
    return options.table == USUAL ? counter_columns : key_columns;
}

/* Sets the cell of column i to value. */
static void set_cell(struct line *line, int i, uint64_t value)
{
    line->cells[i] = digits(value, line->room[i]);
}

/*
 * Sets the cell of column i to hundredths / 100, cut to one or two decimals; to `-' if it is not
 * known.
 */
static void set_decimals(struct line *line, int i, uint64_t hundredths, int n, bool known)
{
    char *decimals = line->room[i] + 20; /* digits() puts its NUL here */

    line->cells[i] = known ? digits(hundredths / 100, line->room[i]) : "-";
    *decimals++ = '.';
    *decimals++ = (char)('0' + hundredths / 10 % 10);
    *decimals++ = (char)('0' + hundredths % 10);
    decimals[n - 2] = '\0';
}

/* Writes the name of the key with the given id, as a row shows it, to the size bytes at buf. */
static void key_name(uint64_t id, char *buf, size_t size)
{
    if (id == OTHER_KEYS)
        snprintf(buf, size, "other");
    else
        tables[options.table].name_key(id, buf, size);
}

/* Sets the cells of key k; all is the sum of the vCPU's keys.  k is NULL if it has no keys. */
static void set_key(struct line *line, const struct key *k, const struct key *all)
{
    static const struct key none = {.timed = 1}; /* its times are known: they are 0 */

    line->cells[COLUMN_KEY] = k == NULL ? "-" : line->room[COLUMN_KEY];
    if (k != NULL)
        key_name(k->id, line->room[COLUMN_KEY], sizeof(line->room[COLUMN_KEY]));
    else
        k = &none;
    bool timed = k->timed != 0;
    set_cell(line, COLUMN_COUNT, k->count);
    set_decimals(line, COLUMN_COUNT_SHARE, hundredths_of(k->count, all->count), 2, true);
    set_decimals(line, COLUMN_TIME_SHARE, hundredths_of(k->total, all->total), 2, timed);
    set_decimals(line, COLUMN_MIN, k->min / 10, 2, timed);
    set_decimals(line, COLUMN_MAX, k->max / 10, 2, timed);
    set_decimals(line, COLUMN_AVERAGE, timed ? k->total / k->timed / 10 : 0, 2, timed);
}

/* The words for enum state. */
static const char *const states[] = {[GONE] = "gone",
    [STILL] = "still",
    [IDLE] = "idle",
    [BUSY] = "busy",
    [STARVED] = "starved",
    [SPINS] = "spins"};

/* Fills line for row: with its counters or, with -e, with key k and all as set_key() does. */
static void set_line(struct line *line, const char *stamp, const struct row *row,
    const struct key *k, const struct key *all)
{
    const struct vcpu *v = row->vcpu;

    line->cells[COLUMN_TIME] = stamp;
    line->cells[COLUMN_PID] = "-";
    if (row->guest != NULL)
        set_cell(line, COLUMN_PID, (uint64_t)row->guest->pid);
    line->cells[COLUMN_VCPU] = "?";
    if (options.sums != 0)
        set_cell(line, COLUMN_VCPU, row->nvcpus);
    else if (v->id != UNKNOWN_VCPU)
        set_cell(line, COLUMN_VCPU, (uint64_t)v->id);
    if (options.table != USUAL) {
        set_key(line, k, all);
        return;
    }
    for (int c = 0; c < NCOUNTERS; c++)
        set_cell(line, FIRST_COUNT + c, v->tally.counts[c]);
    for (int i = 0; i < NSHARES; i++)
        set_decimals(line, FIRST_SHARE + i, v->tally.shares[i], 1, !v->tally.shareless);
    line->cells[COLUMN_STATE] = v->tally.shareless ? "-" : states[row->state];
}

static void put_blanks(struct text *t, size_t n)
{
    memset(reserve(t, n), ' ', n);
    t->size += n;
}

/* Appends s to t, padded with blanks to width: on the left or, if width < 0, on the right. */
static void put_cell(struct text *t, const char *s, int width)
{
    size_t size = strlen(s), wanted = (size_t)abs(width),
           blanks = size < wanted ? wanted - size : 0;

    if (width > 0)
        put_blanks(t, blanks);
    put_bytes(t, s, size);
    if (width < 0)
        put_blanks(t, blanks);
}

static void put_text(struct text *t, const char *s)
{
    put_bytes(t, s, strlen(s));
}

/* Returns the name of column i in the table that is reported; NCOLUMNS is that of -n. */
static const char *column_name(int i)
{
    int n;

    if (i == NCOLUMNS)
        return options.sums > 1 ? "guests" : "name";
    if (i == COLUMN_VCPU && options.sums != 0)
        return "vcpus";
    return i == COLUMN_KEY && options.table != USUAL ? tables[options.table].name
                                                     : table_columns(&n)[i].name;
}

/* Appends s, escaped by put_name(), so that it is valid UTF-8, as a string of JSON. */
static void put_string(struct text *t, const char *s)
{
    char *shown = escaped(s);

    put_text(t, "\"");
    for (const char *p = shown; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            put_text(t, "\\");
        put_bytes(t, p, 1);
    }
    put_text(t, "\"");
    free(shown);
}

/*
 * Appends line and, with -n, name to t as an object of JSON (-j), whose members are the columns:
 * strings where these have words, else numbers; null for what is not known.
 */
static void put_object(struct text *t, const struct line *line, const char *name)
{
    int n;
    const struct column *columns = table_columns(&n);

    put_text(t, "{");
    put_text(t, line->cells[COLUMN_TIME]);
    for (int i = COLUMN_PID; i < n + options.names; i++) {
        bool is_name = i == n;
        const char *cell = is_name ? name : line->cells[i];
        put_text(t, ",");
        put_string(t, column_name(is_name ? NCOLUMNS : i));
        put_text(t, ":");
        if (!is_name && (strcmp(cell, "-") == 0 || strcmp(cell, "?") == 0))
            put_text(t, "null");
        else if (is_name ? options.sums <= 1 : columns[i].width < 0)
            put_string(t, cell);
        else
            put_text(t, cell);
    }
    put_text(t, "}\n");
}

/* Appends line and, with -n, name to t: in columns of these widths or, with -H, with tabs. */
static void put_line(
    struct text *t, const struct line *line, const char *name, const int widths[NCOLUMNS])
{
    int n;
    const struct column *columns = table_columns(&n);

    if (options.json) {
        put_object(t, line, name);
        return;
    }
    for (int i = *line->cells[COLUMN_TIME] == '\0' ? COLUMN_PID : 0; i < n; i++) {
        bool first = t->size == 0 || t->s[t->size - 1] == '\n';
        put_text(t, first ? "" : options.no_header ? "\t" : " ");
        if (columns[i].before != ' ' && !options.no_header)
            put_bytes(t, (char[]){columns[i].before, ' '}, 2);
        put_cell(t, line->cells[i], options.no_header ? 0 : widths[i]);
    }
    if (options.names) {
        put_text(t, options.no_header ? "\t" : " ");
        put_name(t, name);
    }
    put_text(t, "\n");
}

/* Sets the cells of the header; that of time is empty if stamp is. */
static void set_header(struct line *line, const char *stamp)
{
    int n;

    table_columns(&n);
    for (int i = 0; i < n; i++)
        line->cells[i] = column_name(i);
    if (*stamp == '\0')
        line->cells[COLUMN_TIME] = "";
}

/* Widens those of widths that are too narrow for line. */
static void widen(int widths[NCOLUMNS], const struct line *line)
{
    int n;

    table_columns(&n);
    for (int i = 0; i < n; i++) {
        int size = (int)strlen(line->cells[i]);
        if (size > abs(widths[i]))
            widths[i] = widths[i] < 0 ? -size : size;
    }
}

/*
 * Appends the lines of row to t, in columns of the given widths; or, if t is NULL, widens widths
 * for them.  Returns the number of lines: 1 or, with -e, one for each key (-l: of the first), but
 * at least 1.
 */
static size_t put_row(
    struct text *t, const char *stamp, const struct row *row, int widths[NCOLUMNS])
{
    const struct tally *tally = &row->vcpu->tally;
    size_t n = tally->nkeys == 0 ? 1 : tally->nkeys;
    struct key all = {.id = OTHER_KEYS};
    struct line line;
    char nguests[21];
    const char *name = row->guest == NULL ? digits(row->nguests, nguests) : row->guest->name;

    for (size_t i = 0; i < tally->nkeys; i++)
        add_key(&all, &tally->keys[i]);
    if (options.rows != 0 && options.rows < n)
        n = (size_t)options.rows;
    for (size_t i = 0; i < n; i++) {
        set_line(&line, stamp, row, i < tally->nkeys ? &tally->keys[i] : NULL, &all);
        if (t == NULL)
            widen(widths, &line);
        else
            put_line(t, &line, name, widths);
    }
    return n;
}

/* Appends the n rows to t, under a header if one is due.  Returns the number of lines below it. */
static size_t put_rows(
    struct text *t, const struct row *rows, size_t n, const char *stamp, bool header)
{
    int widths[NCOLUMNS] = {0}, ncolumns;
    const struct column *columns = table_columns(&ncolumns);
    struct line names;
    size_t nlines = 0;

    for (int i = 0; i < ncolumns; i++) {
        /* A line of the usual table then has room for a name of 9 characters in 80 columns. */
        bool narrow = options.names && options.table == USUAL && columns[i].width == 6;
        widths[i] = columns[i].width - narrow;
    }
    if ((int)strlen(stamp) > widths[COLUMN_TIME]) /* also where no row follows */
        widths[COLUMN_TIME] = (int)strlen(stamp);
    set_header(&names, stamp);
    widen(widths, &names);
    for (size_t i = 0; i < n; i++) {
        struct tally *tally = &rows[i].vcpu->tally;
        if (tally->nkeys > 1)
            qsort(tally->keys, tally->nkeys, sizeof(struct key), compare_keys);
        nlines += put_row(NULL, stamp, &rows[i], widths);
    }
    if (!options.no_header && (header || nlines > 1))
        put_line(t, &names, column_name(NCOLUMNS), widths);
    for (size_t i = 0; i < n; i++)
        put_row(t, stamp, &rows[i], widths);
    return nlines;
}

/*
 * Cuts the lines of t to so many columns, as those of a terminal.  From U+1100 on, a character is
 * taken to be two columns wide: so none that is cut is wider than that.
 */
static void cut_lines(struct text *t, size_t width)
{
    size_t kept = 0, column = 0, size;
    uint32_t c;

    for (size_t i = 0; i < t->size; i += size) {
        size = take_character(t->s + i, &c); /* not 0: see put_name() */
        column = c == '\n' ? 0 : column + (c < 0x1100 ? 1 : 2);
        if (column <= width) {
            memmove(t->s + kept, t->s + i, size);
            kept += size;
        }
    }
    t->size = kept;
}

/*
 * Prints on stderr, in one line, what was lost since the last report.  A loss that was reported
 * before, but reaches into this interval, from start on, is listed `as before'.
 */
static void report_lost(uint64_t start)
{
    struct text t = {.s = NULL};
    char part[64];

    for (size_t i = 0; i < reading.nstreams; i++) {
        struct stream *s = &reading.streams[i];
        const char *comma = t.size == 0 ? "" : ",";
        if (s->lost != 0 || s->lost_more)
            snprintf(part, sizeof(part), "%s %" PRIu64 "%s on CPU %d", comma, s->lost,
                s->lost_more ? " and more" : "", s->cpu);
        else if (s->gap > start)
            snprintf(part, sizeof(part), "%s as before on CPU %d", comma, s->cpu);
        else
            continue;
        put_bytes(&t, part, strlen(part));
        reading.lost += s->lost;
        s->lost = 0;
        s->lost_more = false;
    }
    if (t.s == NULL)
        return;
    if (is_recorded())
        complain("%s: events lost:%.*s (record with larger buffers)", input.name, (int)t.size, t.s);
    else
        complain("events lost:%.*s (raise -b, now %" PRIu64 ")", (int)t.size, t.s, options.kib);
    free(t.s);
    reading.lossy = true;
}

/* Prints on stderr, a line each, the other reasons why this report may be incomplete. */
static void report_doubts(void)
{
    if (world.unknown != 0)
        complain("%" PRIu64 " events: their threads ended before their guest was known (they are "
                 "counted nowhere)",
            world.unknown);
    if (observer.nleft_out != 0)
        complain("process %d, one of %zu: no answer in time (left out for 10 seconds: vCPUs may be "
                 "missing)",
            observer.left_out, observer.nleft_out);
    if (view.cut && !is_end_asked())
        complain(
            "processes: no time to look at all (vCPUs that were just made may be missing; give a "
            "longer interval)");
    if (view.shortage != 0)
        complain("guests: %s (some may be missing; raise fs.file-max, or free some memory)",
            strerror(view.shortage));
    reading.lossy |= world.unknown != 0 || view.cut || view.shortage != 0 || observer.nhung != 0;
    world.unknown = 0;
    view.cut = false;
    view.shortage = 0;
    observer.nleft_out = observer.nlate = 0;
    set_patience();
}

/*
 * A recording that is made (-w).  While kvmstat runs, the file is a journal, so that at any moment
 * what it has can be reported.  When kvmstat ends, it makes a file of version 6 of the journal,
 * which has all sub-buffers of a CPU one after the other, and puts that in the journal's place.
 */

#define MAX_ENTRIES (1u << 16)   /* (vCPU, thread) entries of one guest that are recorded */
#define WRITE_AT_ONCE (1u << 16) /* bytes of a CPU's sub-buffers that are written at a time */

/* The recording that is made (-w). */
static struct {
    char *name;       /* its path, escaped for printing */
    int dir;          /* its directory */
    const char *file; /* its name in that directory */
    int fd;           /* the journal; -1: there is none yet, or no more */
    bool failed;      /* nothing more can be written to it */
    uint64_t at;      /* bytes that were written to it */
    uint64_t last;    /* offset of its last checkpoint */
    uint64_t end;     /* offset behind that */
    uint64_t until;   /* time of that */
    uint64_t synced;  /* bytes of it that are on the disk */
    uint64_t syncing; /* bytes that the kernel is putting there; 0: it is not doing so */
    uint64_t sync_at; /* when it may do so, or one come before a report, again; CLOCK_MONOTONIC */
    unsigned long queue;          /* the kernel's queue for that, of io_setup(2); 0: none */
    uint64_t formats;             /* bytes of the journal's header */
    uint64_t freed;               /* its sub-buffers before this offset were freed; 0: none were */
    uint64_t first;               /* offset of those that were copied first; 0: none were yet */
    char temporary[NAME_MAX + 1]; /* a new file's name in dir, before it gets file; else empty */
    struct text commands; /* names of threads that were not written: lines of id, blank, name */
    struct text options;  /* options that were not written, as of guests that ended */
    struct text runs;     /* for the next checkpoint: CPU and number of sub-buffers of each */
    struct text guests;   /* GUEST options that were written last of the guests that are there */
    uint64_t guests_at;   /* their offset */
    uint64_t ncommands;   /* bytes of all names of threads up to now */
} output = {.fd = -1};

/* Appends an entry of a GUEST option to t: thread tid (0: none) ran vCPU id. */
static void put_entry(struct text *t, long id, int tid)
{
    put_number(t, id == UNKNOWN_VCPU ? UINT32_MAX : (uint64_t)id, 4);
    put_number(t, (uint64_t)tid, 4);
}

/* Removes the new file that did not get the recording's name, if there is one; errno stays. */
static void remove_unnamed(void)
{
    int error = errno;

    if (*output.temporary != '\0')
        unlinkat(output.dir, output.temporary, 0);
    errno = error;
}

/*
 * Ends the recording, but not the reports, with a message that it failed as errno tells.  Ends
 * kvmstat if nothing is recorded yet.
 */
static void give_up_output(void)
{
    bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    const char *remedy = full ? "a place with more room" : "a file that can be written";
    const char *why = strerror(errno);
    char date[64];

    output.failed = true;
    if (output.last == 0) {
        output.fd = -1;
        remove_unnamed();
        fail("%s: %s (nothing is recorded; give -w %s)", output.name, why, remedy);
    }
    reading.lossy = true;
    format_date(output.until, true, 0, date, sizeof(date));
    complain("%s: %s (recorded up to %s; the reports go on; give -w %s)", output.name, why, date,
        remedy);
    if (ftruncate(output.fd, (off_t)output.end) != 0)
        errno = 0; /* what is behind the last checkpoint takes room, and is not read */
}

/* Finds the recording's directory before anything is traced; ends kvmstat if it cannot write. */
static void open_output(void)
{
    const char *slash = strrchr(options.write, '/');
    char *path = copy(slash == NULL ? "." : options.write);
    struct stat st;

    output.name = escaped(options.write);
    output.file = slash == NULL ? options.write : slash + 1;
    if (slash != NULL)
        path[output.file - options.write] = '\0';
    output.dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    free(path);
    if (output.dir < 0 || faccessat(output.dir, ".", W_OK, AT_EACCESS) != 0)
        give_up_output();
    bool there = fstatat(output.dir, output.file, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!there && errno != ENOENT)
        give_up_output();
    if (*output.file == '\0' || (there && !S_ISREG(st.st_mode)))
        fail("%s: not a regular file (give -w another name)", output.name);
}

/* Writes the size bytes at p to fd.  Returns false with errno if that failed. */
static bool write_all(int fd, const void *p, size_t size)
{
    const char *s = p;
    ssize_t r;

    for (; size > 0; s += r, size -= (size_t)r) {
        if ((r = write(fd, s, size)) < 0)
            return false;
    }
    return true;
}

/* Appends the size bytes at p to the journal, unless that has failed. */
static void write_journal(const void *p, size_t size)
{
    if (output.failed)
        return;
    if (write_all(output.fd, p, size))
        output.at += size;
    else
        give_up_output();
}

/* Writes what was saved of s since this was done before. */
static void write_run(struct stream *s)
{
    if (s->unsaved.size == 0)
        return;
    put_number(&output.runs, (uint64_t)s->cpu, 4);
    put_number(&output.runs, s->unsaved.size / reading.page.size, 4);
    write_journal(s->unsaved.s, s->unsaved.size);
    s->unsaved.size = 0;
}

/* Saves the sub-buffer that s just read. */
static void save_subbuf(struct stream *s)
{
    memset(s->pages + s->nbytes, 0, reading.page.size - s->nbytes);
    if (s->marked)
        s->pages[reading.page.commit.offset + 3] |= COMMIT_MISSED >> 24;
    s->marked = false;
    if (output.failed || output.fd < 0)
        return;
    put_bytes(&s->unsaved, (char *)s->pages, reading.page.size);
    if (s->unsaved.size + reading.page.size > WRITE_AT_ONCE)
        write_run(s);
}

/* Saves the name of thread tid, whose first event was just seen, unless MAX_COMMANDS is reached. */
static void save_command(int tid)
{
    char name[64], line[96];

    if (output.ncommands + sizeof(line) > MAX_COMMANDS ||
        !source->find_comm(tid, name, sizeof(name)))
        return;
    for (char *s = name; *s != '\0'; s++) {
        if (iscntrl((unsigned char)*s))
            *s = '?'; /* each line is one thread's */
    }
    snprintf(line, sizeof(line), "%d %s\n", tid, name);
    put_bytes(&output.commands, line, strlen(line));
    output.ncommands += strlen(line);
}

/* Appends the number of bytes of part, 8 bytes, and these to t. */
static void put_sized(struct text *t, const struct text *part)
{
    put_number(t, part->size, 8);
    put_bytes(t, part->s, part->size);
}

/* Appends the same of the instance's file of that name.  Ends kvmstat if it cannot read it. */
static void put_file(struct text *t, const char *name)
{
    static char text[1 << 16];
    ssize_t size = read_file(trace.dir, name, text, sizeof(text));

    if (size < 0)
        fail_errno(name);
    put_sized(t, &(struct text){.s = text, .size = (size_t)size});
}

/* Appends zeros to t, up to a multiple of a sub-buffer's size. */
static void put_padding(struct text *t)
{
    size_t gap = (size_t)round_up(t->size) - t->size;

    memset(reserve(t, gap), 0, gap);
    t->size += gap;
}

/* Appends to t a system's name, and the number and formats of its wanted events. */
static void put_system(struct text *t, const char *system)
{
    struct text formats = {.s = NULL};
    size_t size = strlen(system);
    uint64_t n = 0;

    for (int i = 0; i < NEVENTS; i++) {
        if (!events[i].wanted || strncmp(events[i].name, system, size) != 0)
            continue;
        put_file(&formats, path_of("events/%s/format", events[i].name));
        n++;
    }
    put_bytes(t, system, size + 1);
    put_number(t, n, 4);
    put_bytes(t, formats.s, formats.size);
    free(formats.s);
}

/* Appends to t an option of a recording's header, with the size bytes at data as its body. */
static void put_option(struct text *t, enum option option, const char *data, size_t size)
{
    put_number(t, option, 2);
    put_number(t, size, 4);
    put_bytes(t, data, size);
}

/* Writes the journal's header: formats of sub-buffers and of the enabled events. */
static void write_formats(void)
{
    struct text t = {.s = NULL};

    put_bytes(&t, dat_magic, strlen(dat_magic));
    put_bytes(&t, journal_version, sizeof(journal_version));
    put_bytes(&t, "", 1); /* little-endian */
    put_bytes(&t, (char[]){sizeof(long)}, 1);
    put_number(&t, reading.page.size, 4);
    put_bytes(&t, "header_page", 12);
    put_file(&t, "events/header_page");
    put_bytes(&t, "header_event", 13);
    put_file(&t, "events/header_event");
    put_number(&t, 0, 4); /* no events of ftrace itself */
    put_number(&t, 2, 4); /* systems, which take_format() reads */
    put_system(&t, "kvm");
    put_system(&t, "task");
    put_number(&t, 0, 4); /* no kallsyms */
    put_number(&t, 0, 4); /* no formats of trace_printk() */
    output.formats = t.size;
    put_padding(&t);
    write_journal(t.s, t.size);
    free(t.s);
}

/* Saves what the header of the whole recording tells of the host. */
static void save_host(void)
{
    struct utsname host;
    char text[sizeof(host)];
    struct text clock = {.s = NULL};

    put_file(&clock, "trace_clock");
    put_bytes(&clock, "", 1);
    put_option(&output.options, OPTION_CLOCK, clock.s + 8, clock.size - 8);
    uname(&host);
    snprintf(
        text, sizeof(text), "%s %s %s %s", host.sysname, host.nodename, host.release, host.machine);
    put_option(&output.options, OPTION_UNAME, text, strlen(text) + 1);
    free(clock.s);
}

/* For qsort(): the order of vCPU numbers, then of thread ids. */
static int compare_entries(const void *a, const void *b)
{
    uint64_t x = load(a, 4) << 32 | load((const uint8_t *)a + 4, 4);
    uint64_t y = load(b, 4) << 32 | load((const uint8_t *)b + 4, 4);

    return x < y ? -1 : x > y;
}

/* Sorts the entries in t and removes duplicates.  Returns how many are left. */
static size_t unify_entries(struct text *t)
{
    size_t n = t->size / ENTRY_SIZE, kept = 0;

    if (n > 1)
        qsort(t->s, n, ENTRY_SIZE, compare_entries);
    for (size_t i = 0; i < n; i++) {
        const char *entry = t->s + i * ENTRY_SIZE;
        if (kept == 0 || memcmp(entry, t->s + (kept - 1) * ENTRY_SIZE, ENTRY_SIZE) != 0)
            memmove(t->s + kept++ * ENTRY_SIZE, entry, ENTRY_SIZE);
    }
    t->size = kept * ENTRY_SIZE;
    return kept;
}

/* Puts which vCPU t ran, if any, or that nothing tells, in entries, which are of its guest. */
static void put_thread(struct text *entries, const struct thread *t)
{
    static bool complained; /* it was said that a guest has too many threads */

    if (output.name == NULL || !t->guest->asked || !t->ran)
        return;
    if (entries->size / ENTRY_SIZE < MAX_ENTRIES || unify_entries(entries) < MAX_ENTRIES) {
        put_entry(entries, t->vcpu != NULL ? t->vcpu->id : UNKNOWN_VCPU, t->tid);
        return;
    }
    if (!complained)
        complain("%s: process %d: too many threads: the recording does not tell which vCPUs "
                 "they ran (record for a shorter time, or with -p)",
            output.name, t->guest->pid);
    complained = reading.lossy = true;
}

/* Saves t, which has ended. */
static void save_thread(const struct thread *t)
{
    if (t->guest != NULL)
        put_thread(&t->guest->ended_threads, t);
}

/*
 * Appends g to t as a GUEST option: its name, its pid (where trace-cmd has a trace id), and (vCPU,
 * thread) entries, one for each thread, and one for each vCPU without a thread.  What follows is
 * kvmstat's own: vcpu.first and vcpu.last for each entry, then the ids of the threads whose vCPU
 * nothing tells.
 *
 * There are entries without a thread for the vCPU numbers that are missing, too: trace-cmd (3.1)
 * writes to its array of entries with the vCPU number as the index, which else could be beyond the
 * array's end.
 */
static void put_guest(struct text *t, const struct guest *g, struct text *entries)
{
    enum { MAX_VCPUS = 1 << 16 }; /* KVM has fewer */
    struct text body = {.s = NULL}, pairs = {.s = NULL}, times = {.s = NULL};
    size_t n = unify_entries(entries), i = 0, j = 0;
    const uint8_t *list = (uint8_t *)entries->s;

    if (!g->asked || (g->nvcpus == 0 && n == 0))
        return;
    for (long id = 0; id < MAX_VCPUS && (j < g->nvcpus || i < n); id++) {
        const struct vcpu *v = j < g->nvcpus && g->vcpus[j]->id == id ? g->vcpus[j++] : NULL;
        uint64_t first = v == NULL ? 0 : v->first, last = v == NULL ? 0 : v->last;
        if ((j < g->nvcpus ? g->vcpus[j]->id : UNKNOWN_VCPU) == UNKNOWN_VCPU && v == NULL &&
            (i == n || entry_vcpu(list, i) == UNKNOWN_VCPU))
            break;
        do {
            bool told = i < n && entry_vcpu(list, i) == id;
            uint64_t tid = told ? load(list + i++ * ENTRY_SIZE + 4, 4) : 0;
            put_entry(&pairs, id, told || v == NULL || v->tid < 0 ? (int)tid : v->tid);
            put_number(&times, first, 8);
            put_number(&times, v != NULL && v->present && g->gone == 0 ? UINT64_MAX : last, 8);
        } while (i < n && entry_vcpu(list, i) == id);
    }
    put_bytes(&body, g->name, strlen(g->name) + 1);
    put_number(&body, (uint64_t)g->pid, 8);
    put_number(&body, pairs.size / ENTRY_SIZE, 4);
    put_bytes(&body, pairs.s, pairs.size);
    put_bytes(&body, times.s, times.size);
    put_number(&body, n - i, 4);
    for (; i < n; i++)
        put_bytes(&body, entries->s + i * ENTRY_SIZE + 4, 4);
    put_option(t, OPTION_GUEST, body.s, body.size);
    free(times.s);
    free(pairs.s);
    free(body.s);
}

/* Saves g, which has ended, and all of whose threads were saved before. */
static void save_guest(struct guest *g)
{
    if (output.name != NULL)
        put_guest(&output.options, g, &g->ended_threads);
}

/* Appends the GUEST options of the guests that are there, and OPTION_END, to t. */
static void put_guests(struct text *t)
{
    for (size_t i = 0; i < world.space; i++) {
        if (world.threads[i] != NULL && world.threads[i]->guest != NULL)
            put_thread(&world.threads[i]->guest->all_threads, world.threads[i]);
    }
    for (size_t i = 0; i < world.nguests; i++) {
        struct guest *g = world.guests[i];
        put_bytes(&g->all_threads, g->ended_threads.s, g->ended_threads.size);
        put_guest(t, g, &g->all_threads);
        g->all_threads.size = 0;
    }
    put_number(t, OPTION_END, 2);
}

/* Ends the recording, but not the reports, unless result is 0: it is a negative errno. */
static void check_sync(int64_t result)
{
    errno = (int)-result;
    if (result != 0)
        give_up_output();
    else
        output.synced = output.syncing;
    output.syncing = 0;
}

/*
 * Has the kernel put what was written to the disk, once a second at most, without waiting for it:
 * the disk may be slow, and events would be lost.  Where the kernel cannot do so, waits.
 */
static void sync_journal(void)
{
    /* struct iocb and struct io_event of linux/aio_abi.h; 3 is IOCB_CMD_FDSYNC */
    uint64_t request[8] = {[2] = 3 | (uint64_t)output.fd << 32}, *list = request, done[4];
    struct timespec none = {0};
    uint64_t t = now(CLOCK_MONOTONIC);

    if (t < output.sync_at)
        return;
    output.sync_at = t + UINT64_C(9) * NSEC / 10; /* so each report of a second has its turn */
    if (output.syncing != 0) {
        if (syscall(SYS_io_getevents, output.queue, 0L, 1L, done, &none) != 1)
            return;
        check_sync((int64_t)done[2]);
    }
    if (output.failed)
        return;
    output.syncing = output.at;
    if (output.queue == 0 && syscall(SYS_io_setup, 1L, &output.queue) != 0)
        output.queue = 0;
    if (output.queue == 0 || syscall(SYS_io_submit, output.queue, 1L, &list) != 1)
        check_sync(fdatasync(output.fd) == 0 ? 0 : -errno);
}

/* Writes a checkpoint up to reading.drained, unless the recording has failed or not begun. */
static void save_checkpoint(void)
{
    struct text t = {.s = NULL}, body = {.s = NULL}, guests = {.s = NULL};

    if (output.fd < 0 || output.failed)
        return;
    for (size_t i = 0; i < reading.nstreams; i++)
        write_run(&reading.streams[i]);
    uint64_t at = output.at, link = htole64(at);
    put_number(&output.options, OPTION_END, 2);
    put_sized(&body, &output.commands);
    put_sized(&body, &output.options);
    put_sized(&body, &output.runs);
    put_guests(&guests);
    bool same =
        guests.size == output.guests.size && memcmp(guests.s, output.guests.s, guests.size) == 0;
    output.guests_at = same ? output.guests_at : at + CHECKPOINT_SIZE + body.size;
    if (!same)
        put_sized(&body, &guests);
    const uint64_t numbers[NNUMBERS] = {[SIZE] = body.size,
        [FROM] = reading.start,
        [UNTIL] = reading.drained,
        [EPOCH_OFFSET] = source->epoch_offset(reading.drained),
        [SYNCED] = output.synced,
        [GUESTS] = output.guests_at};
    put_bytes(&t, checkpoint_magic, 8);
    for (int i = 0; i < NNUMBERS; i++)
        put_number(&t, numbers[i], 8);
    put_bytes(&t, body.s, body.size);
    uint64_t sum = htole64(checksum(0, t.s + SUMMED_FROM, t.size - SUMMED_FROM));
    memcpy(t.s + 8 + sizeof(sum) * SUM, &sum, sizeof(sum));
    put_padding(&t);
    write_journal(t.s, t.size);
    /* The header's end leads to the first one, the others each to the next one. */
    if (!output.failed && output.last != 0 &&
        pwrite(output.fd, &link, 8, (off_t)output.last + 8) != 8)
        give_up_output();
    if (!output.failed) {
        output.last = at;
        output.end = output.at;
        output.until = reading.drained;
        sync_journal();
    }
    output.commands.size = output.options.size = output.runs.size = 0;
    free(output.guests.s);
    output.guests = guests;
    free(body.s);
    free(t.s);
}

/* Begins the journal and gives it its name, in place of a regular file that has that name. */
static void begin_recording(void)
{
    output.fd = create_file(output.dir, output.temporary);
    if (output.fd < 0)
        give_up_output();
    write_formats();
    save_host();
    save_checkpoint();
    if (renameat(output.dir, output.temporary, output.dir, output.file) != 0) {
        output.last = 0;
        give_up_output();
    }
}

/* Appends the part of a checkpoint's body at offset at of the journal, but for its size, to t. */
static void append_part(struct text *t, uint64_t at)
{
    input.at = at;
    size_t size = (size_t)take_count(8, input.size);

    take(reserve(t, size), size);
    t->size += size;
}

/*
 * Appends input.epochs to t as an OPTION_DATE: the microseconds from 1970 to the trace clock's zero
 * and the time up to which they are right; then, if the clock was set meanwhile, those after that,
 * and so on.  trace-cmd reads the first of these numbers only.
 */
static void put_date(struct text *t)
{
    struct text date = {.s = NULL};
    char text[64];

    for (size_t i = 0; i < input.nepochs; i++) {
        const struct epoch *e = &input.epochs[i];
        snprintf(text, sizeof(text), "%s0x%" PRIx64 " %" PRIu64, i == 0 ? "" : " ",
            e->epoch_offset / 1000, e->until);
        put_text(&date, text);
    }
    put_bytes(&date, "", 1);
    put_option(t, OPTION_DATE, date.s, date.size);
    free(date.s);
}

/*
 * Appends the header of version 6 for a journal to t, up to the first sub-buffer: start is the
 * place of the journal's header's end, last the offset of its last checkpoint.  sizes are the bytes
 * of each CPU's sub-buffers, and become the offsets where they are to be.
 */
static void put_whole_header(
    struct text *t, struct checkpoint p, uint64_t last, uint64_t sizes[MAX_CPUS])
{
    static const char clock[] = "[mono]", before[] = "kvmstat " VERSION;
    struct text commands = {.s = NULL}, opts = {.s = NULL};
    size_t ncpus = 1, start = strlen(dat_magic) + sizeof(journal_version);
    char text[128];

    put_bytes(t, dat_magic, strlen(dat_magic));
    put_bytes(t, "6", 2);
    input.at = start;
    take(reserve(t, (size_t)p.end - start), (size_t)p.end - start);
    t->size += (size_t)p.end - start;
    input.nepochs = 0;
    while (p.at != last && next_checkpoint(&p)) {
        note_epoch(p.is[UNTIL], p.is[EPOCH_OFFSET]);
        append_part(&commands, p.at + CHECKPOINT_SIZE);
        append_part(&opts, p.options);
        opts.size -= 2; /* OPTION_END */
        input.at = p.runs;
        for (uint64_t n = take_number(8) / 8; n > 0; n--) {
            size_t cpu = (size_t)take_number(4);
            sizes[cpu] += take_number(4) * reading.page.size;
            ncpus = cpu < ncpus ? ncpus : cpu + 1;
        }
    }
    snprintf(text, sizeof(text), "%s%s%" PRIu64 " to %" PRIu64 " ns", before, reports_from,
        p.is[FROM], p.is[UNTIL]);
    append_part(&opts, p.is[GUESTS]);
    put_sized(t, &commands);
    put_number(t, ncpus, 4);
    put_bytes(t, "options  ", 10);
    put_option(t, OPTION_VERSION, text, strlen(text) + 1); /* before guests: see take_guest() */
    put_date(t);
    put_bytes(t, opts.s, opts.size);
    put_bytes(t, "flyrecord", 10);
    uint64_t at = round_up(t->size + 16 * ncpus + 8 + sizeof(clock));
    for (size_t cpu = 0; cpu < ncpus; cpu++) {
        uint64_t size = sizes[cpu];
        put_number(t, at, 8);
        put_number(t, size, 8);
        sizes[cpu] = at;
        at += size;
    }
    put_number(t, sizeof(clock), 8);
    put_bytes(t, clock, sizeof(clock));
    put_padding(t);
    free(opts.s);
    free(commands.s);
}

/*
 * Copies size bytes at offset from of the journal to offset to of fd; the file system may have both
 * share them.  If there is no room, frees what was copied before.  Returns false with errno if that
 * failed.
 */
static bool copy_run(int fd, uint64_t from, uint64_t to, uint64_t size)
{
    off_t in = (off_t)from, out = (off_t)to;
    off_t freed = output.freed == 0 ? (off_t)output.first : (off_t)output.freed;

    while (size > 0) {
        ssize_t n = copy_file_range(input.fd, &in, fd, &out, (size_t)size, 0);
        int error = n == 0 ? EIO : errno; /* 0: the journal is shorter than it says */
        if (n > 0) {
            size -= (uint64_t)n;
        } else if ((error != ENOSPC && error != EDQUOT) || freed == in ||
                   fallocate(input.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, freed,
                       in - freed) != 0) {
            errno = error;
            return false;
        }
        if (n < 0)
            output.freed = (uint64_t)(freed = in);
    }
    return true;
}

/*
 * Writes the recording of the journal input.fd, the end of whose header is at input.at, to fd, as
 * one of version 6.  Returns false with errno.
 */
static bool write_whole(int fd)
{
    static uint64_t places[MAX_CPUS];
    struct checkpoint p = journal_start();
    uint64_t last = last_checkpoint(p);
    struct text header = {.s = NULL};

    put_whole_header(&header, p, last, places);
    bool done = write_all(fd, header.s, header.size);
    free(header.s);
    while (done && p.at != last && next_checkpoint(&p)) {
        input.at = p.runs;
        for (uint64_t n = take_number(8) / 8, at = p.data; n > 0 && done; n--) {
            uint64_t cpu = take_number(4), size = take_number(4) * reading.page.size;
            output.first = output.first == 0 ? at : output.first;
            done = copy_run(fd, at, places[cpu], size);
            places[cpu] += size;
            at += size;
        }
    }
    return done && fsync(fd) == 0;
}

/* Ends the recording, if one was begun: puts one of version 6 in the journal's place. */
static void finish_recording(void)
{
    int fd = output.fd;

    if (fd < 0)
        return;
    save_checkpoint();
    output.fd = -1; /* a failure in here ends kvmstat, which calls this again */
    input.fd = fd;
    input.name = output.name;
    input.size = output.end;
    input.at = output.formats;
    fd = create_file(output.dir, output.temporary);
    input.header = fdopen(input.fd, "r");
    if (fd >= 0 && input.header != NULL && write_whole(fd) &&
        renameat(output.dir, output.temporary, output.dir, output.file) == 0)
        return;
    complain("%s: %s (%s; kvmstat -r FILE -w NEW makes a file for trace-cmd)", output.name,
        strerror(errno), output.freed != 0 ? "a part is lost" : "recorded, for kvmstat -r");
    remove_unnamed();
    reading.lossy = true;
}

/*
 * Metrics for Performance Co-Pilot (-m).  PCP's agent maps kvmstat's file and reads it when it
 * likes.  Values are updated in place.  When vCPUs came or went, a new file is renamed over the
 * old one, which is not marked invalid: an agent that has just opened a file and finds it
 * invalid may crash pmcd (PCP 6.0).  The agent notices a new file by the modification time of
 * the directory, in whole seconds (PCP 6.0), and may have looked just before the file got its
 * name; so in a later second, the directory's time is set once more.  That also helps if the agent
 * took the size of the old file and then opened a new, larger one.
 */

static const char mmv_name[] = "kvmstat";

#define LATER (NSEC + NSEC / 4) /* nanoseconds, after which it is another second by any clock */

enum {
    PID_VCPUS = 255, /* vCPUs of a process whose ids in PCP are made of its process id */
    MIN_ROOM = 64    /* vCPUs that the first file has room for */
};

/*
 * The format of the file is version 3 of memory mapped values (MMV), which mmv(5) describes.
 * Numbers are in host byte order; offsets are in bytes from the file's start.
 */
struct mmv_header {
    char magic[4];                /* "MMV" */
    int32_t version;              /* 3 */
    volatile uint64_t generation; /* readers use the file only if both are equal and not 0, ... */
    uint64_t generation_too;      /* ... and read its structure anew when both changed */
    int32_t ntocs;                /* number of entries in mmv_file.toc */
    int32_t flags;                /* MMV_PROCESS */
    int32_t pid;                  /* kvmstat's process id */
    int32_t cluster;              /* MMV_CLUSTER */
};

/* An entry of the table of contents: where the objects of one type are. */
struct mmv_toc {
    int32_t type;    /* MMV_INDOMS and so on */
    int32_t count;   /* number of objects */
    uint64_t offset; /* offset of the first object */
};

/* An instance domain.  The only one is the set of vCPUs. */
struct mmv_indom {
    uint32_t serial;    /* MMV_SERIAL */
    uint32_t count;     /* number of instances */
    uint64_t instances; /* offset of the first instance */
    uint64_t meaning;   /* offset of the short help text */
    uint64_t help;      /* offset of the long help text */
};

/* An instance: a vCPU. */
struct mmv_instance {
    uint64_t indom; /* offset of the instance domain */
    uint32_t pad;   /* 0 */
    int32_t id;     /* vcpu.instance */
    uint64_t name;  /* offset of the text PID/VCPU */
};

/* The description of a metric. */
struct mmv_metric {
    uint64_t name;    /* offset of the name, without "mmv.kvmstat." */
    uint32_t item;    /* metric.item */
    int32_t type;     /* MMV_U64 or MMV_STRING */
    int32_t semantic; /* MMV_COUNTER and so on */
    uint32_t unit;    /* MMV_NONE and so on */
    int32_t indom;    /* MMV_SERIAL; -1 if the metric has only one value */
    uint32_t pad;     /* 0 */
    uint64_t meaning; /* offset of the short help text */
    uint64_t help;    /* offset of the long help text */
};

/* A value of a metric. */
struct mmv_value {
    volatile uint64_t value; /* the number; 0 if the value is a string */
    uint64_t extra;          /* offset of the string; 0 if the value is a number */
    uint64_t metric;         /* offset of the metric */
    uint64_t instance;       /* offset of the instance; 0: none */
};

/* A label of an instance. */
struct mmv_label {
    uint32_t flags;  /* MMV_INSTANCE_LABEL */
    uint32_t serial; /* MMV_SERIAL */
    int32_t id;      /* mmv_instance.id of the labelled instance */
    char json[244];  /* {"guest":"NAME"} */
};

/* A text that ends with a NUL. */
struct mmv_text {
    char s[256]; /* the bytes and the NUL */
};

/* Numbers in the file and their meanings: mmv(5). */
enum {
    MMV_CLUSTER = 1086, /* an arbitrary number: the same on all hosts, and no other program's */
    MMV_SERIAL = 1,     /* the serial number of the only instance domain */
    MMV_PROCESS = 2,    /* a flag: the file is valid only while the process lives */
    MMV_INSTANCE_LABEL = 32,
    MMV_INDOMS = 1, /* types of an mmv_toc */
    MMV_INSTANCES = 2,
    MMV_METRICS = 3,
    MMV_VALUES = 4,
    MMV_TEXTS = 5,
    MMV_LABELS = 6,
    MMV_U64 = 3, /* types of an mmv_metric */
    MMV_STRING = 6,
    MMV_COUNTER = 1, /* semantics: the value only grows, ... */
    MMV_INSTANT = 3, /* ... goes up and down, ... */
    MMV_DISCRETE = 4 /* ... or seldom changes */
};
enum { MMV_NONE = 0, MMV_COUNT = 0x00100000, MMV_NANOSECONDS = 0x01000000 }; /* units */

/*
 * The metrics of -m: those of enum counter, these, and with -c those of enum share.  The host has a
 * value of those from METRIC_VCPUS to METRIC_INTERVAL, and each vCPU one of all others.
 */
enum {
    METRIC_NAME = NCOUNTERS,
    METRIC_VCPUS,
    METRIC_LOST,
    METRIC_INTERVAL,
    FIRST_TIME,
    NMETRICS = FIRST_TIME + NSHARES,
    NHOSTMETRICS = FIRST_TIME - METRIC_VCPUS
};

/* A metric that kvmstat exports.  Of a column's, only the first is set: it is a counter. */
struct metric {
    uint32_t item;       /* its number in PCP, which must never change or be used again */
    int32_t type;        /* mmv_metric.type */
    int32_t semantic;    /* mmv_metric.semantic */
    uint32_t unit;       /* mmv_metric.unit */
    const char *name;    /* without "mmv.kvmstat." */
    const char *meaning; /* the help text */
};

/* All metrics.  Those of counters have the names and meanings of their columns. */
static const struct metric all_metrics[NMETRICS] = {[EXITS] = {.item = 1},
    [HALTX] = {.item = 2},
    [IRQX] = {.item = 3},
    [IRQWX] = {.item = 4},
    [IOX] = {.item = 5},
    [MMIOX] = {.item = 6},
    [IRQS] = {.item = 7},
    [EMUL] = {.item = 8},
    [EPTV] = {.item = 9},
    [METRIC_NAME] = {10, MMV_STRING, MMV_DISCRETE, MMV_NONE, "name", "the guest's name"},
    [METRIC_VCPUS] = {11, MMV_U64, MMV_INSTANT, MMV_COUNT, "vcpus", "virtual CPUs of this host"},
    [METRIC_LOST] = {12, MMV_U64, MMV_COUNTER, MMV_COUNT, "lost", "events lost since the start"},
    [METRIC_INTERVAL] = {13, MMV_U64, MMV_DISCRETE, MMV_NANOSECONDS, "interval",
        "the interval of the reports"},
    [FIRST_TIME + RUN] = {14, MMV_U64, MMV_COUNTER, MMV_NANOSECONDS, "run",
        "time that the vCPU's thread ran on a CPU (-c)"},
    [FIRST_TIME + WAIT] = {15, MMV_U64, MMV_COUNTER, MMV_NANOSECONDS, "wait",
        "time that the vCPU's thread had to wait for a CPU (-c)"}};

/* The first part of the file of -m, whose size does not depend on the number of vCPUs. */
struct mmv_file {
    struct mmv_header header;            /* the header */
    struct mmv_toc toc[6];               /* where the objects of each type are */
    struct mmv_indom indom;              /* the instance domain: the vCPUs */
    struct mmv_metric metrics[NMETRICS]; /* the metrics, as in all_metrics */
    struct mmv_text about[NMETRICS][2];  /* the name and help text of each */
    struct mmv_text about_vcpus;         /* both help texts of the instance domain */
};

/* Pointers to the arrays that follow struct mmv_file in the file, in this order. */
struct mmv_vcpus {
    struct mmv_text *ids;           /* PID/VCPU of each vCPU */
    struct mmv_text *names;         /* the guest's name, for each vCPU */
    struct mmv_label *labels;       /* the guest's name as a label, for each vCPU */
    struct mmv_instance *instances; /* the instance of each vCPU */
    struct mmv_value *values;       /* the host's values, then the vCPUs', metric by metric */
};

/* The file of metrics for Performance Co-Pilot (-m). */
static struct {
    char *name; /* path of the file's directory, escaped for printing */
    int dir;    /* file descriptor of the file's directory; -1: none yet */
    dev_t dev;  /* with ino: the file to replace, of this kvmstat or a dead one */
    ino_t ino;  /* 0: there is no such file */
    int fd;     /* the file's descriptor; the lock on the file tells that kvmstat lives */
    struct mmv_file *file; /* the mapped file; NULL: there is none */
    size_t size;           /* bytes of the mapped file */
    size_t room;           /* vCPUs that a new file has room for */
    uint64_t touch_at;     /* when, by CLOCK_MONOTONIC, to set the directory's time; 0: never */
    int next_instance;     /* the next id in PCP that is not made of a process id, modulo 2^30 */
} metrics = {.dir = -1, .fd = -1};

/* Ends kvmstat, as an operation on the file or directory name failed, with errno's reason. */
static _Noreturn void fail_metrics(const char *name)
{
    const char *remedy = "see DIAGNOSTICS in kvmstat(1)";

    switch (errno) {
    case ENOENT: remedy = "install Performance Co-Pilot, or set PCP_TMP_DIR"; break;
    case EACCES:
    case EPERM: remedy = "run as root"; break;
    case EDQUOT:
    case ENOSPC: remedy = "-m needs room there for its file"; break;
    case EEXIST: remedy = "remove what somebody put there in the place of kvmstat's file"; break;
    case EMFILE:
    case ENFILE: remedy = "raise the limit of open files: ulimit -n, or sysctl fs.file-max";
    }
    fail("%s: %s (%s)", name, strerror(errno), remedy);
}

/*
 * Returns the path of PCP's directory of temporary files, found as PCP's own programs find it.
 * The string must not be freed.  Ends kvmstat if neither environment nor configuration has it.
 */
static const char *pcp_directory(void)
{
    static const char key[] = "\nPCP_TMP_DIR=";
    static char text[1 << 16];
    const char *env = getenv("PCP_TMP_DIR"), *conf = getenv("PCP_CONF");

    if (env != NULL && *env != '\0')
        return env;
    conf = conf != NULL && *conf != '\0' ? conf : "/etc/pcp.conf";
    char *name = escaped(conf);
    text[0] = '\n';
    if (read_file(AT_FDCWD, conf, text + 1, sizeof(text) - 1) < 0)
        fail_metrics(name);
    char *dir = strstr(text, key);
    if (dir == NULL)
        fail("%s: no PCP_TMP_DIR (set it in the environment)", name);
    free(name);
    dir += strlen(key);
    dir[strcspn(dir, "\r\n")] = '\0';
    return dir;
}

/* Opens the directory of the file, before anything is traced; ends kvmstat if that fails. */
static void open_metrics_directory(void)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof(path), "%s/mmv", pcp_directory()) >= sizeof(path))
        fail("PCP_TMP_DIR: too long");
    metrics.dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    metrics.name = escaped(path);
    if (metrics.dir < 0)
        fail_metrics(metrics.name);
}

/*
 * Returns whether the file called mmv_name is the one that may be replaced.  If not, errno is
 * set: to ENOENT if there is no file of that name, to EEXIST if it is another one.
 */
static bool is_in_place(void)
{
    struct stat st;

    if (fstatat(metrics.dir, mmv_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    errno = EEXIST;
    return is_own(&st) && st.st_dev == metrics.dev && st.st_ino == metrics.ino;
}

/*
 * Finds the file that a dead kvmstat left, if there is one.  Ends kvmstat if the kvmstat that
 * made the file lives, or if no kvmstat of this user made it.
 */
static void find_former_file(void)
{
    /* A live kvmstat has a write lock.  Read locks do not count: other users can set them. */
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    struct mmv_header header;
    struct stat st;

    int fd = openat(metrics.dir, mmv_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return;
    bool strange = fd < 0 && (errno == ELOOP || errno == ENXIO); /* a symbolic link or a socket */
    if (fd < 0 && !strange)
        fail_metrics(metrics.name);
    strange = strange || fstat(fd, &st) != 0 || !is_own(&st);
    ssize_t size = strange ? 0 : read(fd, &header, sizeof(header));
    if (size < 0 || (size > 0 && fcntl(fd, F_GETLK, &lock) != 0))
        fail_metrics(metrics.name);
    if (size != sizeof(header) || memcmp(header.magic, "MMV", 4) != 0 ||
        header.cluster != MMV_CLUSTER)
        fail("%s/%s: not made by kvmstat (remove it)", metrics.name, mmv_name);
    if (lock.l_type != F_UNLCK)
        fail("%s/%s: kvmstat %d already exports (end that one, or leave -m out)", metrics.name,
            mmv_name, (int)header.pid);
    metrics.dev = st.st_dev;
    metrics.ino = st.st_ino;
    close(fd);
}

/*
 * Returns whether v, a vCPU of g, is an instance: every vCPU with a row is one.  The row `?' of a
 * running guest is one even if it counted nothing, or its counters would come and go.
 */
static bool is_instance(const struct guest *g, const struct vcpu *v)
{
    return !g->former && (has_row(g, v) || (v->id == UNKNOWN_VCPU && g->gone == 0 && g->asked));
}

/*
 * Returns the id in PCP of v, a vCPU of g, after giving it one if it has none.  An id must never
 * become that of another vCPU.  It has 31 bits, and a process id has 22.  So the vCPUs of a
 * process with numbers below PID_VCPUS, and its row `?', have ids made of the process id, which
 * are the same in the next run of kvmstat.  Other vCPUs, and those of a process whose process id
 * was another guest's before, get the next id of a sequence that starts elsewhere in each run.
 */
static int instance_of(const struct guest *g, struct vcpu *v)
{
    int first = g->pid * (PID_VCPUS + 1);

    if (v->instance == 0 && !g->reused && v->id == UNKNOWN_VCPU)
        v->instance = first + PID_VCPUS;
    else if (v->instance == 0 && !g->reused && v->id < PID_VCPUS)
        v->instance = first + (int)v->id;
    else if (v->instance == 0)
        v->instance = (1 << 30) | (metrics.next_instance++ & ((1 << 30) - 1));
    return v->instance;
}

/* Returns where in f, a file with n vCPUs, the arrays behind struct mmv_file are. */
static struct mmv_vcpus mmv_vcpus_of(struct mmv_file *f, size_t n)
{
    struct mmv_vcpus v = {.ids = (struct mmv_text *)(f + 1)};

    v.names = v.ids + n;
    v.labels = (struct mmv_label *)(v.names + n);
    v.instances = (struct mmv_instance *)(v.labels + n);
    v.values = (struct mmv_value *)(v.instances + n);
    return v;
}

/* Returns how many metrics there are, of all_metrics the first ones. */
static int nmetrics(void)
{
    return options.shares ? NMETRICS : FIRST_TIME;
}

/* Returns the size in bytes of a file with n vCPUs. */
static size_t mmv_size(size_t n)
{
    return sizeof(struct mmv_file) +
           n * (2 * sizeof(struct mmv_text) + sizeof(struct mmv_label) +
                   sizeof(struct mmv_instance) +
                   (size_t)(nmetrics() - NHOSTMETRICS) * sizeof(struct mmv_value)) +
           NHOSTMETRICS * sizeof(struct mmv_value);
}

/* Returns the offset in f of the object at p. */
static uint64_t offset_of(const struct mmv_file *f, const void *p)
{
    return (uint64_t)((const char *)p - (const char *)f);
}

/*
 * Copies as many whole characters of name as fit, and a NUL, to the size bytes at to.  They are
 * escaped as in a report; then a backslash is put before each character that is in quoted.
 */
static void copy_name(char *to, size_t size, const char *name, const char *quoted)
{
    struct text t = {.s = NULL};
    size_t used = 0;

    put_name(&t, name);
    put_bytes(&t, "", 1);
    for (const char *s = t.s; *s != '\0';) {
        size_t length = printable(s), quote = strchr(quoted, *s) != NULL;
        if (used + quote + length >= size)
            break;
        if (quote)
            to[used++] = '\\';
        memcpy(to + used, s, length);
        used += length;
        s += length;
    }
    to[used] = '\0';
    free(t.s);
}

/* Fills in the descriptions of all metrics in f. */
static void describe_metrics(struct mmv_file *f)
{
    for (int i = 0; i < nmetrics(); i++) {
        const struct metric *metric = &all_metrics[i];
        const struct column *column = i < NCOUNTERS ? &counter_columns[FIRST_COUNT + i] : NULL;
        bool of_host = i >= METRIC_VCPUS && i < FIRST_TIME;
        struct mmv_text *about = f->about[i];
        strcpy(about[0].s, column != NULL ? column->name : metric->name);
        strcpy(about[1].s, column != NULL ? column->meaning : metric->meaning);
        f->metrics[i] = (struct mmv_metric){.name = offset_of(f, &about[0]),
            .item = metric->item,
            .type = column != NULL ? MMV_U64 : metric->type,
            .semantic = column != NULL ? MMV_COUNTER : metric->semantic,
            .unit = column != NULL ? MMV_COUNT : metric->unit,
            .indom = of_host ? -1 : MMV_SERIAL,
            .meaning = offset_of(f, &about[1]),
            .help = offset_of(f, &about[1])};
    }
}

/* Fills in instance i of f, the vCPU at row, and its texts and label; vcpus has the arrays of f. */
static void describe_instance(
    struct mmv_file *f, const struct mmv_vcpus *vcpus, const struct row *row, size_t i)
{
    static const char before[] = "{\"guest\":\"", after[] = "\"}";
    struct mmv_instance *instance = &vcpus->instances[i];
    struct mmv_label *label = &vcpus->labels[i];
    const char *name = row->guest->name;
    char number[24] = "?";

    if (row->vcpu->id != UNKNOWN_VCPU)
        snprintf(number, sizeof(number), "%ld", row->vcpu->id);
    snprintf(vcpus->ids[i].s, sizeof(vcpus->ids[i].s), "%d/%s", row->guest->pid, number);
    copy_name(vcpus->names[i].s, sizeof(vcpus->names[i].s), name, "");
    *instance = (struct mmv_instance){.indom = offset_of(f, &f->indom),
        .id = instance_of(row->guest, row->vcpu),
        .name = offset_of(f, &vcpus->ids[i])};
    *label =
        (struct mmv_label){.flags = MMV_INSTANCE_LABEL, .serial = MMV_SERIAL, .id = instance->id};
    strcpy(label->json, before);
    copy_name(label->json + strlen(before), sizeof(label->json) - strlen(before) - strlen(after),
        name, "\"\\");
    strcat(label->json, after);
}

/* Fills in the n vCPUs at rows in f, and the metric and instance of each value. */
static void describe_instances(struct mmv_file *f, const struct row *rows, size_t n)
{
    struct mmv_vcpus vcpus = mmv_vcpus_of(f, n);
    struct mmv_value *value = vcpus.values;

    for (int m = METRIC_VCPUS; m < FIRST_TIME; m++)
        *value++ = (struct mmv_value){.metric = offset_of(f, &f->metrics[m])};
    for (size_t i = 0; i < n; i++)
        describe_instance(f, &vcpus, &rows[i], i);
    for (int m = 0; m < nmetrics(); m = m == METRIC_NAME ? FIRST_TIME : m + 1) {
        for (size_t i = 0; i < n; i++)
            *value++ = (struct mmv_value){.metric = offset_of(f, &f->metrics[m]),
                .instance = offset_of(f, &vcpus.instances[i]),
                .extra = m == METRIC_NAME ? offset_of(f, &vcpus.names[i]) : 0};
    }
}

/* Sets the numbers in f, whose instances are the n vCPUs at rows, to their current values. */
static void set_values(struct mmv_file *f, const struct row *rows, size_t n)
{
    struct mmv_value *values = mmv_vcpus_of(f, n).values;
    size_t at = 0;

    uint64_t present = 0;
    for (size_t i = 0; i < n; i++)
        present += rows[i].guest->gone == 0 && rows[i].vcpu->present;
    values[at++].value = present;
    values[at++].value = reading.lost;
    values[at++].value = options.interval;
    for (int c = 0; c < NCOUNTERS; c++) {
        for (size_t i = 0; i < n; i++)
            values[at++].value = rows[i].vcpu->totals[c];
    }
    at += n; /* METRIC_NAME's */
    for (int c = 0; c < NSHARES && options.shares; c++) {
        for (size_t i = 0; i < n; i++)
            values[at++].value = rows[i].vcpu->spent[c];
    }
}

/* Fills the new file f, whose bytes are all 0, for the n vCPUs at rows. */
static void fill_file(struct mmv_file *f, const struct row *rows, size_t n)
{
    struct mmv_vcpus vcpus = mmv_vcpus_of(f, n);
    uint64_t generation = now(CLOCK_MONOTONIC);
    int32_t count = (int32_t)n;

    f->header = (struct mmv_header){.magic = "MMV",
        .version = 3,
        .generation = generation,
        .generation_too = generation,
        .ntocs = sizeof(f->toc) / sizeof(f->toc[0]),
        .flags = MMV_PROCESS,
        .pid = getpid(),
        .cluster = MMV_CLUSTER};
    const struct mmv_toc toc[] = {{MMV_INDOMS, 1, offset_of(f, &f->indom)},
        {MMV_INSTANCES, count, offset_of(f, vcpus.instances)},
        {MMV_METRICS, nmetrics(), offset_of(f, f->metrics)},
        {MMV_TEXTS, 2 * NMETRICS + 1 + 2 * count, offset_of(f, f->about)},
        {MMV_LABELS, count, offset_of(f, vcpus.labels)},
        {MMV_VALUES, NHOSTMETRICS + (nmetrics() - NHOSTMETRICS) * count,
            offset_of(f, vcpus.values)}};
    memcpy(f->toc, toc, sizeof(toc));
    strcpy(f->about_vcpus.s, "the virtual CPUs of this host, by PID/VCPU");
    f->indom = (struct mmv_indom){.serial = MMV_SERIAL,
        .count = (uint32_t)n,
        .instances = offset_of(f, vcpus.instances),
        .meaning = offset_of(f, &f->about_vcpus),
        .help = offset_of(f, &f->about_vcpus)};
    describe_metrics(f);
    describe_instances(f, rows, n);
    set_values(f, rows, n);
}

/* Removes new files of kvmstats that were killed just before they renamed them to mmv_name. */
static void remove_new_files(void)
{
    DIR *d = open_dir(metrics.dir, ".");
    struct dirent *e;
    struct stat st;

    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strncmp(e->d_name, new_name, strlen(new_name)) == 0 &&
            fstatat(metrics.dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && is_own(&st))
            unlinkat(metrics.dir, e->d_name, 0);
    }
    if (d != NULL)
        closedir(d);
}

/*
 * Gives the new file fd the given size in bytes, sets kvmstat's lock on it and maps it.  Forked
 * processes do not inherit the mapping.  Returns NULL with errno set if that fails.
 */
static struct mmv_file *map_new_file(int fd, size_t size)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    /* Blocks are allocated now: on a full disk, a write to the mapping would raise SIGBUS. */
    int error = posix_fallocate(fd, 0, (off_t)size);
    if (error != 0)
        return errno = error, NULL;
    if (fcntl(fd, F_SETLK, &lock) != 0 || fchmod(fd, 0644) != 0) /* the agent is another user */
        return NULL;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, size, MADV_DONTFORK);
    return p;
}

/* Unmaps and closes kvmstat's file, if there is one, but does not remove it. */
static void close_metrics_file(void)
{
    if (metrics.file == NULL)
        return;
    munmap(metrics.file, metrics.size);
    close(metrics.fd);
    metrics.file = NULL;
}

/*
 * Makes a file for the n vCPUs at rows and renames it over the one before, if any.  Returns false
 * with errno set if that fails, and keeps the file before; EEXIST: another file is called mmv_name.
 */
static bool replace_metrics_file(const struct row *rows, size_t n)
{
    char name[NAME_MAX + 1];
    struct stat st;

    while (metrics.room < n)
        metrics.room *= 2;
    size_t size = mmv_size(metrics.room);
    if (!is_in_place() && errno != ENOENT)
        return false;
    int fd = create_file(metrics.dir, name);
    if (fd < 0)
        return false;
    struct mmv_file *f = map_new_file(fd, size);
    if (f != NULL)
        fill_file(f, rows, n);
    if (f == NULL || fstat(fd, &st) != 0 ||
        renameat(metrics.dir, name, metrics.dir, mmv_name) != 0) {
        int error = errno;
        unlinkat(metrics.dir, name, 0);
        if (f != NULL)
            munmap(f, size);
        close(fd);
        errno = error;
        return false;
    }
    close_metrics_file();
    metrics.file = f;
    metrics.size = size;
    metrics.fd = fd;
    metrics.dev = st.st_dev;
    metrics.ino = st.st_ino;
    return true;
}

/* Makes the first file, without vCPUs.  Ends kvmstat if that fails or another kvmstat has one. */
static void start_metrics(void)
{
    find_former_file();
    remove_new_files();
    metrics.room = MIN_ROOM;
    metrics.next_instance = (int)(now(CLOCK_REALTIME) / (NSEC / 4096) % (1 << 30));
    if (!replace_metrics_file(NULL, 0))
        fail_metrics(metrics.name);
    metrics.touch_at = now(CLOCK_MONOTONIC) + LATER;
}

/* Removes kvmstat's file, if there is one, and marks it invalid. */
static void remove_metrics_file(void)
{
    if (metrics.file == NULL)
        return;
    if (is_in_place())
        unlinkat(metrics.dir, mmv_name, 0);
    /* The agent sees this at once, but the removal only in the next second. */
    metrics.file->header.generation = 0;
    close_metrics_file();
}

/*
 * Adds the counts of the interval to the totals, and writes those to the file or, if that has not
 * these vCPUs or is not in its place, to a new one.  Ends kvmstat if it cannot make that.
 */
static void report_metrics(void)
{
    static struct row *rows;
    struct mmv_file *f = metrics.file;
    size_t n = list_rows(&rows, is_instance);
    bool same = f->indom.count == n && !naming.changed && is_in_place();
    const struct mmv_instance *instances = same ? mmv_vcpus_of(f, n).instances : NULL;

    for (size_t i = 0; i < n; i++) {
        struct vcpu *v = rows[i].vcpu;
        for (int c = 0; c < NCOUNTERS; c++)
            v->totals[c] += v->tally.counts[c];
        same = same && instances[i].id == instance_of(rows[i].guest, v);
    }
    if (same) {
        set_values(f, rows, n);
    } else if (replace_metrics_file(rows, n)) {
        metrics.touch_at = now(CLOCK_MONOTONIC) + LATER;
        naming.changed = false;
    } else {
        fail_metrics(metrics.name);
    }
    if (metrics.touch_at != 0 && metrics.touch_at <= now(CLOCK_MONOTONIC)) {
        metrics.touch_at = 0;
        if (utimensat(metrics.dir, ".", NULL, 0) != 0)
            fail_metrics(metrics.name);
    }
}

/*
 * Starting and ending.
 */

/*
 * Makes guests of the processes of -p now: -p means these processes, and not others that may get
 * their ids later.
 */
static void find_asked(void)
{
    for (size_t i = 0; i < options.npids; i++)
        guest_of(options.pids[i], now(CLOCK_MONOTONIC))->asked = true;
}

/*
 * Waits until no other kvmstat is making its instance: one that starts would take a half-made
 * instance for that of a dead kvmstat, and remove it.  Returns false with errno set if that
 * fails.  A signal that asks for the end ends kvmstat.
 */
static bool lock_instances(void)
{
    sigset_t before;
    int r;

    mask_signals(SIG_UNBLOCK, &before); /* the kvmstat that has the lock may be stopped */
    do
        r = flock(trace.instances, LOCK_EX);
    while (r != 0 && errno == EINTR && signalled == 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (signalled != 0)
        leave_by_signal(signalled);
    return r == 0;
}

/*
 * Returns, as bits, the capabilities that kvmstat needs while it reports: CAP_DAC_OVERRIDE if the
 * directory of instances, of -m's file or of the recording is not this user's (see
 * is_own_directory()).
 */
static uint32_t needed_capabilities(void)
{
    bool writer = (options.write == NULL || is_own_directory(output.dir)) &&
                  is_own_directory(trace.instances) &&
                  (!options.metrics || is_own_directory(metrics.dir));

    return writer ? 0 : 1u << DAC_OVERRIDE;
}

/* Returns the name of a capability that is missing to see other users' guests; NULL: none is. */
static const char *missing_capability(void)
{
    if (!has_capability(SYS_PTRACE))
        return "CAP_SYS_PTRACE";
    return has_capability(DAC_OVERRIDE) || has_capability(DAC_READ_SEARCH) ? NULL
                                                                           : "CAP_DAC_READ_SEARCH";
}

/*
 * Opens tracefs's directory of instances and locks it, and checks that kvmstat can see all guests
 * here, and their times if -c needs them.  Ends kvmstat if it cannot.
 */
static void open_instances(void)
{
    uint64_t times[NSHARES] = {0};

    int tracefs = open_tracefs();
    trace.instances = openat(tracefs, "instances", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (trace.instances < 0 || !lock_instances())
        fail_errno("/sys/kernel/tracing/instances");
    close(tracefs);
    const char *missing = missing_capability();
    if (missing != NULL)
        fail("%s: missing, and other users' guests would be hidden (%s)", missing, have_rights);
    if (options.shares)
        read_times(view.proc, getpid(), times);
    if (times[RUN] >= ENDED_TIMES)
        fail("/proc/PID/schedstat: the kernel does not keep it (leave -c out)");
}

/* Sets everything up and starts tracing; ends kvmstat if that fails. */
static void start_tracing(void)
{
    open_instances();
    if (options.metrics)
        start_metrics();
    create_instance();
    flock(trace.instances, LOCK_UN);
    set_buffers();
    find_asked();
    if (options.some)
        set_pids();
    enable_events();
    open_debugfs();
    open_uevents();
    open_streams();
    view.search_again = true;
    look_at_all();
    watch_instance();
    if (write(trace.hold, "1", 1) != 1)
        fail_errno("tracing_on");
    note_changes(); /* inotify tells of kvmstat's own write, too */
    trace.changed = false;
    trace.touched.size = trace.ntouched = 0;
    /* Not before that write to tracing_on: it waits while somebody makes or removes an instance. */
    reading.start = reading.drained = now(CLOCK_MONOTONIC);
    note_present(reading.start);
    if (options.shares)
        set_all_shares();
    else if (options.write != NULL)
        find_all_last_threads();
    if (options.write != NULL)
        begin_recording();
    keep_capabilities(needed_capabilities());
}

/*
 * Stops tracing and waits until the janitor has removed the instance.  Returns false, after a
 * complaint, if the instance is still there.
 */
static bool end_tracing(void)
{
    int status = 0;
    pid_t ended;

    if (trace.janitor == 0)
        return true;
    for (size_t i = 0; i < reading.nstreams; i++)
        close(reading.streams[i].fd);
    for (size_t i = 0; i < trace.nwatches; i++) {
        if (trace.watches[i].dir >= 0)
            close(trace.watches[i].dir);
    }
    close(trace.hold);
    close(trace.dir);
    close(trace.janitor_pipe);
    while ((ended = waitpid(trace.janitor, &status, 0)) < 0 && errno == EINTR)
        ;
    trace.janitor = 0;
    /* If somebody killed the janitor, or it had no tracefs, this process removes the instance. */
    bool tried = ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 2;
    bool removed = tried ? status == 0 : trace.instances < 0 || remove_instance();
    if (!removed)
        complain("tracefs instance %s: in use (somebody has a file of it open: "
                 "rmdir it later, or the next kvmstat will)",
            trace.name);
    return removed;
}

/*
 * Cleans up, ends the recording of -w and ends kvmstat with the given status; but, in place of 0,
 * with 1 if the instance is still there, or with 3 if something is missing in reports or recording.
 */
static _Noreturn void leave(int status)
{
    remove_metrics_file();
    if (!end_tracing() && status == 0)
        status = 1;
    finish_recording();
    exit(status == 0 && reading.lossy ? 3 : status);
}

/*
 * Ends kvmstat by signal sig, so that a shell that waits for it sees that.  A recording gets all
 * events up to now, and the vCPUs of their threads.
 */
static _Noreturn void leave_by_signal(int sig)
{
    sigset_t all;

    if (output.fd >= 0) {
        drain_buffers(now(CLOCK_MONOTONIC));
        find_all_vcpus();
    }
    remove_metrics_file();
    end_tracing();
    finish_recording();
    signal(sig, SIG_DFL);
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    raise(sig);
    _exit(128 + sig);
}

/*
 * Waiting for events, for the end of an interval, and for signals.
 */

#define NAP (NSEC / 50)         /* nanoseconds between two looks at busy buffers */
#define SHORT_NAP (NSEC / 1000) /* nanoseconds: the shortest, while new guests may be starting */
#define EAGER 20                /* number of looks without a nap after a quiet time */

static void on_signal(int sig)
{
    if (signalled == 0)
        signalled = sig;
    /* The signal may have come just before write_patiently() waits: another one will follow. */
    alarm(1);
}

/*
 * Makes the signals that ask for the end set signalled, and blocks them; *unblocked gets the mask
 * with which to wait for them.  SIGINT, SIGTERM and SIGALRM are caught in any case: a shell starts
 * background jobs with SIGINT ignored, and on_signal() needs SIGALRM.  The others stay ignored if
 * they are, as under nohup(1).
 */
static void catch_signals(sigset_t *unblocked)
{
    struct sigaction old, action = {.sa_handler = on_signal};

    mask_signals(SIG_BLOCK, unblocked);
    for (size_t i = 0; i < NENDINGS; i++) {
        int sig = endings[i];
        sigdelset(unblocked, sig);
        if (sig == SIGINT || sig == SIGTERM || sig == SIGALRM ||
            (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN))
            sigaction(sig, &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN); /* write() fails with EPIPE */
    signal(SIGXFSZ, SIG_IGN); /* write() fails with EFBIG */
    signal(SIGCHLD, SIG_DFL); /* if it were ignored, waitpid() would give no status */
}

static struct timespec to_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NSEC), .tv_nsec = (long)(ns % NSEC)};
}

/*
 * Waits, with the signal mask *unblocked, until the given time of CLOCK_MONOTONIC, or until one of
 * the first n of trace.polls has something, or a signal has asked for kvmstat's end.
 */
static void wait_until(uint64_t until, size_t n, const sigset_t *unblocked)
{
    uint64_t t = now(CLOCK_MONOTONIC);
    struct timespec timeout = to_timespec(until > t && signalled == 0 ? until - t : 0);

    trace.polls[POLL_UEVENTS].revents = 0;
    if (ppoll(trace.polls, n, &timeout, unblocked) < 0 && errno != EINTR)
        fail("poll: %s", strerror(errno));
}

/*
 * Waits until there is something to look at or the interval ends, at end.  On a quiet host, an
 * event wakes kvmstat at once: a new guest's threads may be gone soon.  On a busy host, kvmstat
 * naps between two looks, so that not each event wakes it: only a uevent does.
 *
 * Returns the time up to which events are to be counted, end at most.  After a full nap it is a bit
 * ago, so that the sub-buffer that a busy CPU is writing need not be read: the kernel hands over a
 * full one as it is, but copies that one event by event.
 */
static uint64_t wait_for_events(uint64_t end, const sigset_t *unblocked)
{
    static uint64_t due; /* when the next look is due if the host is busy */
    uint64_t t = now(CLOCK_MONOTONIC), nap = NAP;

    /* In a nap, a CPU with 1.2 million events a second fills half of the default buffer. */
    if (options.kib < DEFAULT_KIB)
        nap = NAP * options.kib / DEFAULT_KIB;
    if (nap < SHORT_NAP)
        nap = SHORT_NAP;
    /* With -w, each look takes room in the recording: a sub-buffer, however few its events. */
    uint64_t brisk = options.write == NULL ? SHORT_NAP : NAP / 2;
    if (t < view.attentive_until && nap > brisk)
        nap = brisk;
    due = due < t ? due : t; /* the interval may have ended before: this nap begins now */
    due = (due + EAGER * nap > t ? due : t - EAGER * nap) + nap;
    if (due > t)
        wait_until(due < end ? due : end, POLL_UEVENTS + 1, unblocked);
    /* After a nap, there is no need to wait for events: where there were some, there are again. */
    bool busy = due > t && !trace.quiet && options.write == NULL;
    if (!busy) {
        /* With -w, a few do not wake kvmstat (see WATERMARK), so it looks for them by itself. */
        uint64_t look = now(CLOCK_MONOTONIC) + (t < view.attentive_until ? nap : NSEC);
        wait_until(options.write != NULL && look < end ? look : end,
            FIRST_STREAM + reading.nstreams, unblocked);
    }
    if ((trace.polls[POLL_UEVENTS].revents & POLLIN) != 0 && read_uevents())
        due = 0;
    t = now(CLOCK_MONOTONIC);
    return t >= end ? end : busy && nap == NAP ? t - SHORT_NAP : t;
}

/*
 * Operands and options.
 */

#define MIN_INTERVAL (NSEC / 100) /* nanoseconds */
#define MAX_INTERVAL 1000000u     /* seconds: 11 days */
#define MAX_KIB (1u << 30)        /* -b: 1 TiB, beyond any host's memory */

/* Ends kvmstat after -h or -V; with an error if what they print could not be written. */
static _Noreturn void end_printing(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        fail("stdout: %s", strerror(errno));
    exit(0);
}

static _Noreturn void print_version(void)
{
    puts("kvmstat " VERSION);
    end_printing();
}

static _Noreturn void print_help(void)
{
    print_usage(stdout);
    printf("\nPrints every interval (1 second), count times, each virtual CPU's counts in it.\n"
           "  -b  KiB of trace buffer for each CPU (default %d)\n"
           "  -c  add run%%, wait%% and state, which tell why a vCPU has zeros\n"
           "  -e  report exits by reason, or I/O, MSRs, CPUID or hypercalls, and times\n"
           "  -h  print this, and end; -V: print the version\n"
           "  -H  for scripts: print no header, and one tab between fields\n"
           "  -j  print each row as an object of JSON, in a line\n"
           "  -k  sort by this column, the highest first; with -e: count or time\n"
           "  -l  print only so many rows (top ten: -k exits -l 10); with -e: of each vCPU\n"
           "  -m  also give the counters to Performance Co-Pilot, as mmv.kvmstat\n"
           "  -n  add the guests' names as the last column\n"
           "  -p  report only these guests: process ids, or names as of -n, or patterns\n"
           "  -r  report what -w or trace-cmd recorded in this file, to its end\n"
           "  -s  print a row for each guest, the sums of its vCPUs; -ss: one for the host\n"
           "  -T  put the time first: d as ISO 8601, u as seconds since 1970 (-r: if known)\n"
           "  -w  while reporting, record in this file, in trace-cmd's format\n"
           "  -z  leave out rows whose counts are all zero\n\n",
        DEFAULT_KIB);
    for (int i = COLUMN_PID; i < NCOLUMNS; i++)
        printf("  %-6s  %s\n", counter_columns[i].name, counter_columns[i].meaning);
    puts("With -e, in place of the counters:");
    for (int i = VMEXIT; i < NTABLES; i++)
        printf("  %-9s  %s\n", tables[i].name, tables[i].meaning);
    for (int i = COLUMN_COUNT; i < NKEYCOLUMNS; i++)
        printf("  %-9s  %s\n", key_columns[i].name, key_columns[i].meaning);
    end_printing();
}

/* Sets options.interval and options.decimals from word, a number of seconds. */
static void parse_interval(const char *word)
{
    uint64_t seconds = 0, fraction = 0;
    const char *s = word;
    bool valid = *s == '.' || parse_digits(&s, MAX_INTERVAL, &seconds);

    options.decimals = 0;
    if (valid && *s == '.') {
        const char *start = ++s;
        valid = parse_digits(&s, NSEC - 1, &fraction) && s - start <= 9;
        options.decimals = (int)(s - start);
        for (int i = options.decimals; i < 9; i++)
            fraction *= 10;
    }
    options.interval = seconds * NSEC + fraction;
    if (!valid || *s != '\0' || options.interval < MIN_INTERVAL ||
        options.interval > (uint64_t)MAX_INTERVAL * NSEC)
        usage_error("interval \"", word,
            "\": not a number of seconds from 0.01 to 1000000, with 9 decimals at most");
}

/* Returns the whole number from 1 to max that word is; what begins the message if it is none. */
static uint64_t parse_whole(const char *what, const char *word, uint32_t max)
{
    const char *s = word;
    uint64_t value;
    char why[64];

    snprintf(why, sizeof(why), "\": not a whole number from 1 to %" PRIu32, max);
    if (!parse_digits(&s, max, &value) || *s != '\0' || value == 0)
        usage_error(what, word, why);
    return value;
}

/* Takes the comma-separated list of -p: all digits are a process, anything else a guest's name. */
static void parse_guests(const char *list)
{
    options.some = true;
    if (strchr(list, ',') != NULL)
        options.list = list;
    for (const char *s = list;; s++) {
        size_t size = strcspn(s, ",");
        char *word = copy(s);
        word[size] = '\0';
        int pid = parse_int(word);
        if (word[strspn(word, "0123456789")] != '\0') {
            options.guests = grow(options.guests, options.nguests, sizeof(char *));
            options.guests[options.nguests++] = word;
        } else if (pid > 0) {
            options.pids = grow(options.pids, options.npids, sizeof(int));
            options.pids[options.npids++] = pid;
            free(word);
        } else {
            usage_error("-p \"", word, "\": neither a process id nor a guest's name");
        }
        s += size;
        if (*s == '\0')
            return;
    }
}

/*
 * Ends kvmstat if the interval looks like another process id for -p: it is the id of a process
 * with the same name as process pid.  -p $(pidof qemu) gives words, not a list with commas.
 */
static void check_interval(int pid)
{
    uint64_t seconds = options.interval / NSEC;
    char word[21], name[64], other[64];

    if (seconds == 0 || options.decimals != 0 || !source->find_comm(pid, name, sizeof(name)) ||
        !source->find_comm((int)seconds, other, sizeof(other)) || strcmp(name, other) != 0)
        return;
    snprintf(word, sizeof(word), "%" PRIu64, seconds);
    usage_error("interval \"", word, "\": a process id; put commas between the guests of -p");
}

/* Ends kvmstat with status 2 and a message: what -p gives, word, is not here, and why. */
static _Noreturn void refuse_guest(const char *word, const char *why)
{
    complain("-p \"%s\": %s", escaped(word), why);
    leave(2);
}

/*
 * Leaves out of -p the processes that are not there; ends kvmstat if there is no other guest, or if
 * an id is not that of a process.
 */
static void check_pids(void)
{
    char word[21];

    for (size_t i = 0; i < options.npids;) {
        int pid = options.pids[i];
        snprintf(word, sizeof(word), "%d", pid);
        int error = ask_task(pid);
        if (error == ESRCH) {
            if (options.npids + options.nguests == 1)
                refuse_guest(word, "no such process");
            complain("-p \"%s\": no such process (the other guests are reported)", word);
            options.pids[i] = options.pids[--options.npids];
            reading.lossy = true;
            continue;
        }
        if (error == 0 && observer.answer.pid != pid)
            refuse_guest(word, "a thread; give its process");
        check_interval(pid);
        i++;
    }
}

/*
 * Has the guests reported that -p names, as far as they are known, and of a recording those whose
 * process has such a name.  Returns the first name that is none's; NULL: there is none.
 */
static const char *choose_guests(void)
{
    const char *unknown = NULL;

    for (size_t i = 0; i < world.nguests; i++) {
        if (has_name(world.guests[i], options.list)) {
            world.guests[i]->asked = true;
            options.npids = options.nguests = 0; /* they are parts of its name */
        }
    }
    for (size_t i = options.nguests; i-- > 0;) {
        bool known = false;
        for (size_t j = 0; j < world.nguests; j++) {
            bool same = has_name(world.guests[j], options.guests[i]);
            world.guests[j]->asked |= same;
            known |= same;
        }
        for (size_t j = 0; j < input.ncommands; j++)
            known |= matches(input.commands[j].name, options.guests[i]);
        unknown = known ? unknown : options.guests[i];
    }
    return unknown;
}

/*
 * Finds the guests of this host that -p names; ends kvmstat if there are none.  The search ends at
 * the first look that has not seen everything but has one of each name.  Leaves a user who cannot
 * see all guests to start_tracing(), which says so.
 */
static void find_names(void)
{
    const struct guest *missing = NULL;
    const char *unknown = NULL;

    if (options.nguests == 0 || missing_capability() != NULL)
        return;
    naming.complained = true; /* not each name that comes late is worth a message */
    view.search_again = true;
    do {
        view.left = FIRST_LOOK;
        view.cut = false;
        search_processes();
        unknown = choose_guests();
    } while (view.cut && unknown != NULL && !is_end_asked());
    for (size_t i = 0; i < world.nguests; i++)
        missing = world.guests[i]->ask_at != 0 ? world.guests[i] : missing;
    naming.complained = missing != NULL;
    reading.lossy = missing != NULL || view.cut;
    if (missing != NULL)
        complain("/proc/%d/cmdline: no answer (-p leaves this guest out, and perhaps others: their "
                 "names cannot be told)",
            missing->pid);
    else if (view.cut)
        complain("processes: no time to look at all (-p may leave out guests)");
    if (unknown != NULL && !view.cut)
        refuse_guest(unknown, "no guest has this name (kvmstat -n 1 1 shows their names)");
}

/* Returns the table that the first size bytes of the operand of -e name. */
static enum table parse_table(const char *word, size_t size)
{
    for (int i = VMEXIT; i < NTABLES; i++) {
        if (strlen(tables[i].name) == size && strncmp(word, tables[i].name, size) == 0)
            return (enum table)i;
    }
    usage_error("-e \"", word, "\": neither vmexit, mmio, ioport, msr, cpuid nor hypercall");
}

/* Takes the comma-separated list of -e, or all: the first table is reported, or the usual one. */
static void parse_tables(const char *list)
{
    options.all = strcmp(list, "all") == 0;
    options.more = options.all ? (1u << NTABLES) - 1 : 0;
    options.table = options.all ? USUAL : parse_table(list, strcspn(list, ","));
    for (const char *s = list; !options.all && *(s += strcspn(s, ",")) != '\0';) {
        s++;
        options.more |= 1u << USUAL | 1u << parse_table(s, strcspn(s, ","));
    }
}

/* Ends kvmstat if the table that is reported has no column that -k can name so. */
static void check_order(void)
{
    const char *word = options.order;
    int i = FIRST_COUNT;

    options.by_time = strcmp(word, "time") == 0;
    bool of_keys = options.by_time || strcmp(word, "count") == 0;
    while (i < COLUMN_STATE && strcmp(word, counter_columns[i].name) != 0)
        i++;
    if (options.table != USUAL && !of_keys)
        usage_error("-k \"", word, "\": neither count nor time, which are those of -e");
    if (options.table == USUAL && of_keys)
        usage_error("-k \"", word, "\": only with -e");
    if (options.table == USUAL && i == COLUMN_STATE)
        usage_error("-k \"", word,
            "\": neither exits, haltx, irqx, irqwx, iox, mmiox, irqs, emul, eptv, run% nor wait%");
    if (options.table == USUAL && i >= FIRST_SHARE && !options.shares)
        usage_error("-k \"", word, "\": only with -c");
}

/* Takes word, the operand with number n from 0 on: interval or count. */
static void take_operand(int n, const char *word)
{
    if (n == 0)
        parse_interval(word);
    else if (n == 1)
        options.count = parse_whole("count \"", word, UINT32_MAX);
    else
        usage_error("\"", word,
            options.some ? "\": one operand too many; put commas between the guests of -p"
                         : "\": one operand too many");
}

/* Ends kvmstat if there are options that do not go together. */
static void check_combinations(void)
{
    const char *live = options.kib != 0  ? "-b"
                       : options.shares  ? "-c"
                       : options.metrics ? "-m"
                                         : NULL;

    if (options.read != NULL && strcmp(options.read, "-") == 0)
        usage_error("-r \"-", "", "\": a pipe; give a file, for -r has to read at any place");
    if (options.write != NULL && strcmp(options.write, "-") == 0)
        usage_error("-w \"-", "", "\": a pipe; give a file, for -w has to write at any place");
    if (is_recorded() && live != NULL)
        usage_error(live, "", ": not with -r");
    if (options.more != 0 && (options.write == NULL || is_recorded()))
        usage_error("-e", "", ": several tables, or all, only with -w");
    if (options.table != USUAL && (options.metrics || options.shares))
        usage_error(options.shares ? "-c" : "-m", "", ": not with -e");
    if (options.order != NULL)
        check_order();
}

/*
 * Sets options and source from the command line.  Ends kvmstat after -h and -V, and with status 2
 * if the command line is wrong.
 */
static void parse_options(int argc, char **argv)
{
    int c, at, noperands = 0;

    opterr = 0;
    while (at = optind,
        (c = getopt(argc, argv, "+:b:ce:hHjk:l:mnp:r:sT:Vw:z")) != -1 || argv[optind] != NULL) {
        char letter[] = {'-', (char)optopt, '\0'};
        /* optopt is `-' for --anything and -n-: then the message shows the whole word. */
        const char *word = optopt == '-' ? argv[at] : letter;
        switch (c) {
        case -1: /* an operand, which options may follow; behind `--', all are operands */
            for (int end = optind > at ? argc : optind + 1; optind < end; optind++)
                take_operand(noperands++, argv[optind]);
            break;
        case 'b': options.kib = parse_whole("-b \"", optarg, MAX_KIB); break;
        case 'c': options.shares = true; break;
        case 'e': parse_tables(optarg); break;
        case 'h': print_help();
        case 'H': options.no_header = true; break;
        case 'j': options.json = options.no_header = true; break;
        case 'k': options.order = optarg; break;
        case 'l': options.rows = parse_whole("-l \"", optarg, UINT32_MAX); break;
        case 'm': options.metrics = true; break;
        case 'n': options.names = true; break;
        case 'p': parse_guests(optarg); break;
        case 'r': options.read = optarg; break;
        case 's': options.sums++; break;
        case 'T':
            if (strcmp(optarg, "d") != 0 && strcmp(optarg, "u") != 0)
                usage_error("-T \"", optarg,
                    "\": neither d (local time by ISO 8601) nor u (seconds since 1970)");
            options.stamp = *optarg;
            break;
        case 'V': print_version();
        case 'w': options.write = optarg; break;
        case 'z': options.no_zeros = true; break;
        case ':': usage_error("", word, ": its value is missing");
        default:
            if (strcmp(word, "--help") == 0)
                print_help();
            if (strcmp(word, "--version") == 0)
                print_version();
            usage_error("", word, ": no such option");
        }
    }
    check_combinations();
    if (options.json && options.stamp == 0)
        options.stamp = 'd';
    source = is_recorded() ? &recorded_host : &this_host;
}

/*
 * Raises the limit of open files, opens procfs, starts the janitor, sets clock_offset, checks that
 * this host has what -p gives, and sets the options of this host that were not given.  Ends kvmstat
 * with status 2 if -p is wrong.
 */
static void complete_options(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* each possible CPU needs a file descriptor */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    open_procfs();
    find_clock_offset();
    start_janitor();
    find_names();
    check_pids();
    if (options.kib == 0)
        options.kib = DEFAULT_KIB;
    if (options.interval == 0)
        options.interval = NSEC;
}

/*
 * Reports: of this host, or of a recording.
 */

#define HEADER_EVERY 20    /* number of one-row reports under one header */
#define MAX_QUIET 1000000u /* -r: how many reports in a row, or lines in all, may have no event */

/*
 * Adds up the lines of all reports, of which the next one has n, and ends kvmstat if a recording of
 * that size cannot have events for them: a line with a count needs an event, and that 8 bytes.
 */
static void refuse_many_lines(size_t n)
{
    static uint64_t work; /* in lines; to look whether something has a line costs less */

    work += 1 + n + (world.nvcpus + world.nthreads + reading.nstreams) / 32;
    if (work > MAX_QUIET + input.size / 4)
        fail("%s: more lines than it has events for (give a longer interval)", input.name);
}

/* Says on stderr that there is no virtual machine to report. */
static void say_nothing(void)
{
    const char *where = options.npids == 0 ? "" : " in the processes of -p";

    if (is_recorded())
        complain("%s: no virtual machine%s", input.name, where);
    else
        complain("no virtual machine is running%s", where);
}

/* Says of each row `?' of the n rows why it is there, and what to do, but only once. */
static void explain_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n && options.sums == 0 && !is_recorded(); i++) {
        struct vcpu *v = rows[i].vcpu;
        if (v->untold != NULL && v->untold[0] != '\0') {
            complain("process %d: row ?: a thread %s", rows[i].guest->pid, v->untold);
            v->untold = "";
        }
    }
}

/*
 * Reports the interval from start to end, times of the trace clock, and clears the counts.  If
 * it is the last one, no exit is left to wait for its kvm_mmio.
 */
static void report(uint64_t start, uint64_t end, bool last)
{
    static struct text t;
    static struct row *rows;
    static unsigned under_header; /* reports since the last header */
    static bool was_empty;        /* the last report had no row */
    struct winsize window;
    char stamp[128];

    settle_exits(last ? UINT64_MAX : end);
    find_all_vcpus();
    if (options.shares)
        set_all_shares();
    else if (output.fd >= 0)
        find_all_last_threads();
    save_checkpoint();
    report_lost(start);
    report_doubts();
    if (options.metrics)
        report_metrics();
    format_stamp(start, end, stamp, sizeof(stamp));
    t.size = 0;
    size_t nrows = list_rows(&rows, has_row), nchosen = choose_rows(rows, nrows);
    explain_rows(rows, nchosen);
    size_t nlines = put_rows(&t, rows, nchosen, stamp, under_header == 0);
    under_header = (under_header == 0 || nlines > 1 ? 1 : under_header + 1) % HEADER_EVERY;
    if (nrows == 0 && !was_empty)
        say_nothing();
    was_empty = nrows == 0;
    if (is_recorded())
        refuse_many_lines(nlines);
    if (!options.no_header && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col != 0)
        cut_lines(&t, window.ws_col); /* a terminal */
    write_out(&t);
    clear_counts();
}

/* Looks at this host at the end of an interval, reports it and forgets what has ended. */
static void report_interval(uint64_t start, uint64_t end, bool last)
{
    /* After others' changes, the buffers were emptied: no kvm_mmio follows any more from there. */
    last |= report_changes(start);
    bool unloaded = is_unloaded();
    find_ended(reading.gap > start);
    look_at_all();
    if (options.some)
        find_ended(false); /* -p ends in the report in which the last VM has gone */
    note_present(end);
    name_guests();
    report(start, end, last || unloaded);
    if (unloaded)
        fail("kvm: unloaded (load it, and start kvmstat anew)");
    forget_threads(end);
    forget_guests(end);
}

/*
 * Returns whether all processes of -p have ended and no event of theirs is left to report.  To
 * find out, counts the events in the buffers, but leaves reading.drained at the last report's end.
 */
static bool is_over(void)
{
    uint64_t end = reading.drained;

    for (size_t i = 0; i < world.nguests; i++) {
        if (world.guests[i]->asked && world.guests[i]->gone == 0)
            return false;
    }
    drain_buffers(now(CLOCK_MONOTONIC));
    reading.drained = end;
    for (size_t i = 0; i < world.space; i++) {
        const struct thread *t = world.threads[i];
        if (t != NULL && (t->active || t->last_exit == FAULT))
            return false;
    }
    return true;
}

/*
 * Ends kvmstat if a signal asked for that; but the intervals that had ended before, the next of
 * them at end, are reported first, if that takes less than a second.
 */
static void heed_signal(uint64_t end)
{
    static uint64_t asked; /* when the signal was seen; 0: not yet */
    uint64_t t = now(CLOCK_MONOTONIC);

    if (signalled == 0)
        return;
    asked = asked == 0 ? t : asked;
    if (end <= asked && t - asked < NSEC)
        return;
    if (end <= asked)
        complain("ended by a signal: %" PRIu64 " reports are missing (kvmstat was that late)",
            (asked - end) / options.interval + 1);
    leave_by_signal(signalled);
}

/* Traces this host and reports, count times at most, until all processes of -p have ended. */
static void report_host(void)
{
    sigset_t unblocked;

    complete_options();
    /* There, headers of events have other fields, and no such host has a kvm_exit to count. */
    if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
        fail("this host is big-endian (kvmstat counts on little-endian hosts only)");
    if (options.write != NULL)
        open_output();
    if (options.metrics)
        open_metrics_directory();
    catch_signals(&unblocked);
    start_tracing();
    uint64_t end = reading.start;
    for (uint64_t n = 0; options.count == 0 || n < options.count; n++) {
        end += options.interval;
        for (bool over = false; !over;) {
            uint64_t until = wait_for_events(end, &unblocked);
            over = until == end;
            heed_signal(end);
            drain_buffers(until);
            if ((trace.polls[POLL_STDOUT].revents & (POLLERR | POLLHUP)) != 0)
                leave_by_signal(SIGPIPE);
            if ((trace.polls[POLL_CHANGES].revents & POLLIN) != 0)
                note_changes();
            if (trace.changed)
                mend_instance();
            if (world.any_new)
                find_new_vcpus();
            if (!over && now(CLOCK_MONOTONIC) >= output.sync_at)
                save_checkpoint();
        }
        report_interval(end - options.interval, end, n + 1 == options.count);
        if (options.some && is_over())
            break;
    }
}

/*
 * Ends kvmstat if the recording's next event is so long after end, the end of an interval, that
 * only a damaged file, or too short an interval, explains it.
 */
static void refuse_long_quiet(uint64_t end, uint64_t next)
{
    if ((next - end) / options.interval > MAX_QUIET)
        fail("%s: no event for more than %u intervals (give a longer one)", input.name, MAX_QUIET);
}

/*
 * Reports a recording: if kvmstat made it, to the end of its last report, which it tells, else to
 * its last event.
 */
static void report_recording(void)
{
    bool has_end, last;
    uint64_t n = 0;
    int whole = -1; /* -w: the recording of version 6 that is made of a journal */

    open_input();
    /* A new file only: it is made with the user's rights, and written without them. */
    if (options.write != NULL &&
        (whole = open(options.write, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
        fail("%s: %s (give -w a new file)", escaped(options.write), strerror(errno));
    drop_privileges();
    read_header();
    if (whole >= 0 && !input.cut)
        fail("%s: was not cut (leave -w out)", input.name);
    input.at = input.formats;
    if (whole >= 0 && !write_whole(whole))
        fail(
            "%s: %s (give -w a file that can be written)", escaped(options.write), strerror(errno));
    const char *unknown = choose_guests();
    if (unknown != NULL)
        refuse_guest(unknown, "no guest of the recording has this name (-n shows their names)");
    has_end = input.until != UINT64_MAX;
    reading.start = input.from;
    drain(0);
    uint64_t end = input.from != 0 ? input.from : next_time();
    end = end == UINT64_MAX ? 0 : end;
    do {
        uint64_t start = end;
        end = options.interval == 0 || input.until - end < options.interval
                  ? input.until
                  : end + options.interval;
        drain(end);
        bool more = has_end ? end < input.until : next_time() != UINT64_MAX;
        if (!more && !has_end)
            end = last_time();
        if (more)
            refuse_long_quiet(end, next_time() < input.until ? next_time() : input.until);
        last = !more || ++n == options.count;
        recall_present(start, end);
        report(start, end, last);
    } while (!last);
}

/* Has an allocation that would need more than MAX_MEMORY fail: then kvmstat is out of memory. */
static void limit_memory(void)
{
    struct rlimit memory;

    if (getrlimit(RLIMIT_AS, &memory) == 0 && memory.rlim_cur > MAX_MEMORY) {
        memory.rlim_cur = MAX_MEMORY;
        setrlimit(RLIMIT_AS, &memory);
    }
}

int main(int argc, char **argv)
{
    /* A file that kvmstat opens must not become its stdin, stdout or stderr if that is closed. */
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            fail("/dev/null: %s", strerror(errno));
    }
    if (getrandom(&world.odd, sizeof(world.odd), GRND_NONBLOCK) < 0)
        world.odd = now(CLOCK_REALTIME);
    world.odd |= 1;
    parse_options(argc, argv);
    if (is_recorded()) {
        limit_memory();
        report_recording();
    } else {
        report_host();
    }
    leave(0);
}
