/*
 * fuzz - what kvmstat.c makes of bytes that nobody vouches for, by libFuzzer
 *
 * kvmstat.c is included, so that its static functions can be called, and what they
 * ask of libc is put in other places: the end of the program leads to the next
 * input, its memory is freed then, and its output is looked at and goes nowhere.
 * One target is built at a time:
 *
 *   subbuf     sub-buffers, in any layout that a header_page can describe
 *   format     events' formats, the names in them, and header_page
 *   recording  reports of a recording (-r)
 *   operands   the command line
 *   names      the guests' names in their monitors' command lines
 *
 * Beside what the sanitizers find, it is an error if something does not hold that must().
 *
 * usage: see tests/fuzz/run, which builds and runs all of them (make fuzz)
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * What stands in for libc in kvmstat.c.
 */

static _Noreturn void end_input(int status);
static void *resize_block(void *p, size_t size);
static void free_block(void *p);
static char *copy_text(const char *s);
static ssize_t look_at_output(int fd, const void *p, size_t size);
static int ask_for_process(pid_t pid, int sig);
static int open_nothing(int dir, const char *path, int flags, ...);

static FILE *errors; /* kvmstat.c's stderr */

#define main kvmstat_main
#define exit(status) end_input(status)
#define realloc(p, size) resize_block(p, size)
#define free(p) free_block(p)
#define strdup(s) copy_text(s)
#define write(fd, p, size) look_at_output(fd, p, size)
#define kill(pid, sig) ask_for_process(pid, sig)
#define openat(...) open_nothing(__VA_ARGS__)
#define geteuid() 1000 /* root would become somebody who cannot keep inputs */
#undef stderr
#define stderr errors
/* All its variables, those inside functions too, come to stand together: see forget(). */
#pragma clang section bss = "kvmstat_bss" data = "kvmstat_data"
#include "../../kvmstat.c"
#pragma clang section bss = "" data = ""
#undef main
#undef exit
#undef realloc
#undef free
#undef strdup
#undef write
#undef kill
#undef openat
#undef geteuid

#define PAGE 4096      /* bytes of a sub-buffer */
#define CHOICES 4      /* bytes before a recording that choose how it is reported */
#define MAX_WORDS 64   /* of a command line */
#define MAX_REPORTS 50 /* of a recording: a million of them are allowed, and take long */
#define FEW 8          /* bytes of an input that are changed where they are */

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

/* What stands before the bytes that kvmstat.c is given when it asks for memory. */
struct block {
    struct block *next;  /* the one that was asked for before */
    struct block **link; /* what points to this one */
};

/* Where kvmstat.c's variables are: the linker's names for the two sections. */
extern char __start_kvmstat_bss[], __stop_kvmstat_bss[];
extern char __start_kvmstat_data[], __stop_kvmstat_data[];
#define DATA_SIZE ((size_t)(__stop_kvmstat_data - __start_kvmstat_data))

static struct block *blocks;     /* all that are not freed yet, the newest first */
static char *first_data;         /* what was in the data section at first */
static jmp_buf next_input;       /* where exit() leads */
static int file = -1;            /* the recording */
static int whole = -1;           /* what -w makes of it if it is a journal */
static volatile uint64_t unused; /* takes values that only have to be read */
static uint64_t sums[NCOUNTERS]; /* of the recording's rows up to now */

/* Ends the fuzzer, which keeps the input, unless what always has to hold does. */
__attribute__((noinline)) static void must(bool hold)
{
    if (!hold)
        abort();
}

static _Noreturn void end_input(int status)
{
    must(status >= 0 && status <= 3);
    longjmp(next_input, 1);
}

/*
 * Memory.  The heads of blocks are poisoned: kvmstat.c has no business there, but the
 * functions here have.
 */

#define UNCHECKED __attribute__((no_sanitize("address", "undefined", "coverage"), noinline))

/* Takes b out of the list. */
UNCHECKED static void unlink_block(struct block *b)
{
    *b->link = b->next;
    if (b->next != NULL)
        b->next->link = b->link;
}

/* Puts b at the list's start. */
UNCHECKED static void link_block(struct block *b)
{
    *b = (struct block){.next = blocks, .link = &blocks};
    if (b->next != NULL)
        b->next->link = &b->next;
    blocks = b;
    ASAN_POISON_MEMORY_REGION(b, sizeof(*b));
}

static void *resize_block(void *p, size_t size)
{
    struct block *b = p == NULL ? NULL : (struct block *)p - 1;

    if (b != NULL)
        unlink_block(b);
    b = realloc(b, sizeof(*b) + size);
    must(b != NULL);
    link_block(b);
    return b + 1;
}

static void free_block(void *p)
{
    if (p == NULL)
        return;
    unlink_block((struct block *)p - 1);
    free((struct block *)p - 1);
}

/* The size bytes at p and a NUL, with room for no other byte; freed with the input. */
static char *text_of(const void *p, size_t size)
{
    char *text = resize_block(NULL, size + 1);

    if (size != 0)
        memcpy(text, p, size);
    text[size] = '\0';
    return text;
}

static char *copy_text(const char *s)
{
    return text_of(s, strlen(s));
}

/* Copies size bytes with what ASan has between variables, which it does not let memcpy() do. */
UNCHECKED static void copy_section(char *to, const char *from, size_t size)
{
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) /* sections are aligned, and so long */
        *(volatile uint64_t *)(void *)(to + i) = *(const uint64_t *)(const void *)(from + i);
}

/* Makes kvmstat.c what it was before it had an input. */
static void forget(void)
{
    while (blocks != NULL)
        free_block(blocks + 1);
    if (input.header != NULL)
        fclose(input.header);
    if (view.proc >= 0)
        close(view.proc);
    copy_section(__start_kvmstat_data, first_data, DATA_SIZE);
    /* As memset(), but ASan does not look at it. */
    explicit_bzero(__start_kvmstat_bss, (size_t)(__stop_kvmstat_bss - __start_kvmstat_bss));
    memset(sums, 0, sizeof(sums));
}

/*
 * What is always true of output.
 */

/* The UTF-8 sequences that a terminal may get: Unicode, table 3-7, without control characters. */
static const struct {
    uint8_t first, last; /* the first byte is one of these ... */
    uint8_t low, high;   /* ... the second one of these, all others 0x80 to 0xbf */
    size_t size;         /* bytes in all */
} sequences[] = {{0x20, 0x7e, 0, 0, 1}, {0xc2, 0xc2, 0xa0, 0xbf, 2}, {0xc3, 0xdf, 0x80, 0xbf, 2},
    {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
    {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
    {0xf4, 0xf4, 0x80, 0x8f, 4}};

/* The length of the sequence that the size bytes at s begin with; 0 if a terminal must not get it.
 */
static size_t sequence_length(const uint8_t *s, size_t size)
{
    for (size_t i = 0; i < SIZE(sequences); i++) {
        if (*s < sequences[i].first || *s > sequences[i].last || size < sequences[i].size)
            continue;
        if (sequences[i].size > 1 && (s[1] < sequences[i].low || s[1] > sequences[i].high))
            continue;
        for (size_t j = 2; j < sequences[i].size; j++) {
            if (s[j] >> 6 != 2)
                return 0;
        }
        return sequences[i].size;
    }
    return 0;
}

/* Checks that a terminal may get the size bytes at p; those in except are no errors. */
static void check_clean(const void *p, size_t size, const char *except)
{
    const uint8_t *s = p;

    for (size_t i = 0, length; i < size; i += length) {
        length =
            s[i] != '\0' && strchr(except, s[i]) != NULL ? 1 : sequence_length(s + i, size - i);
        must(length != 0);
    }
}

/* How many times c is in the size bytes at s. */
static size_t count_of(char c, const char *s, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < size; i++)
        n += s[i] == c;
    return n;
}

/* Checks a report's lines: with -H all have the fields asked for, else all are as long. */
static void check_lines(const char *s, size_t size)
{
    int ncolumns;
    size_t length = (size_t)((const char *)memchr(s, '\n', size) - s);

    table_columns(&ncolumns);
    size_t tabs = (size_t)ncolumns - 1 - (options.stamp == 0) + options.names;
    for (const char *end = s + size; s < end; s += length + 1) {
        if (options.names || options.no_header)
            length = (size_t)((const char *)memchr(s, '\n', (size_t)(end - s)) - s);
        must(s + length < end && s[length] == '\n');
        must(count_of('\t', s, length) == (options.no_header ? tabs : 0));
    }
}

/*
 * Checks what is counted.  An exit counts once in all reports together, not in one: the
 * kvm_mmio that gives it its column may be in the next one, and be another vCPU's if the
 * formats say so.
 */
static void check_counts(void)
{
    uint64_t in_columns = 0;

    for (size_t i = 0; i < world.nguests; i++) {
        for (size_t j = 0; j < world.guests[i]->nvcpus; j++) {
            const struct tally *t = &world.guests[i]->vcpus[j]->tally;
            for (int c = 0; c < NCOUNTERS; c++)
                sums[c] += t->counts[c];
            must(t->nkeys <= MAX_KEYS);
            for (size_t k = 0; k < t->nkeys; k++)
                must(t->keys[k].min <= t->keys[k].max);
        }
    }
    for (int c = HALTX; c <= MMIOX; c++)
        in_columns += sums[c];
    must(options.table != USUAL || in_columns + sums[EPTV] <= sums[EXITS]);
}

/* Where stderr ends: what is said there is lines, too, and by kvmstat. */
static ssize_t look_at_errors(void *cookie, const char *s, size_t size)
{
    (void)cookie;
    check_clean(s, size, "\n");
    must(size > 9 && strncmp(s, "kvmstat: ", 9) == 0 && s[size - 1] == '\n');
    return (ssize_t)size;
}

/* write(): of a report, of an error, or of a recording that is made of a journal. */
static ssize_t look_at_output(int fd, const void *p, size_t size)
{
    if (fd == whole)
        return (ssize_t)size;
    if (fd == STDERR_FILENO)
        return look_at_errors(NULL, p, size);
    must(fd == STDOUT_FILENO);
    check_clean(p, size, "\t\n");
    check_lines(p, size);
    if (!options.some) /* or there are rows that are not escaped */
        check_counts();
    return (ssize_t)size;
}

/*
 * The host: half of all processes are there, and no file is.
 */

static int ask_for_process(pid_t pid, int sig)
{
    must(pid > 0 && sig == 0);
    errno = ESRCH;
    return pid % 2 == 0 ? 0 : -1;
}

static int open_nothing(int dir, const char *path, int flags, ...)
{
    (void)dir;
    (void)path;
    (void)flags;
    errno = ENOENT;
    return -1;
}

/*
 * The targets.
 */

typedef void target(const uint8_t *data, size_t size);
static target fuzz_subbuf, fuzz_format, fuzz_recording, fuzz_operands, fuzz_names;

/* What FUZZ can be. */
enum { subbuf, format, recording, operands, names, NTARGETS };

static target *const targets[NTARGETS] = {
    fuzz_subbuf, fuzz_format, fuzz_recording, fuzz_operands, fuzz_names};

/* A layout that parse_header_page() can give, chosen by three bytes. */
static struct page_layout make_layout(const uint8_t *choice)
{
    struct page_layout layout = {.data = 8 + choice[0] / 2 % 56, .size = PAGE};

    layout.time = (struct field){.offset = choice[1] % (layout.data - 7), .size = 8};
    layout.commit.size = choice[0] % 2 == 0 ? 4 : 8;
    layout.commit.offset = choice[2] % (layout.data - layout.commit.size + 1);
    return layout;
}

/* Checks that event r is in b's data, and that every field of it can be asked for. */
static void check_record(const struct subbuf *b, const struct record *r)
{
    must(r->data >= b->data && r->data + r->size <= b->data + b->at && b->at <= b->size);
    for (size_t offset = 0; offset <= r->size + 1; offset += 1 + r->size / 8) {
        for (size_t size = 0; size <= 8; size++)
            unused = field_value(r, (struct field){offset, size});
    }
    must(event_id(r) <= UINT16_MAX);
}

/* Three bytes that choose a layout, then a sub-buffer. */
static void fuzz_subbuf(const uint8_t *data, size_t size)
{
    struct subbuf b;
    struct record r;
    int found;
    size_t before = 0;

    if (size < 3)
        return;
    struct page_layout layout = make_layout(data);
    if (!subbuf_open(&b, data + 3, size - 3, &layout))
        return;
    must(b.data + b.size <= data + size);
    while ((found = subbuf_next(&b, &r)) == 1) {
        check_record(&b, &r);
        must(b.at > before);
        before = b.at;
    }
    must(found == subbuf_next(&b, &r)); /* what is at its end stays there */
}

/* Checks what parse_format() made of a text. */
static void check_format(const struct event_type *type, bool understood)
{
    for (int i = 0; i < NFIELDS; i++)
        must(type->fields[i].offset < UINT16_MAX && type->fields[i].size <= 8);
    must(!understood || (type->id > 0 && type->id <= UINT16_MAX));
    must(!understood || type->fields[COMMON_PID].size != 0);
}

/* Checks the name of the reason with the given number in each of the tables. */
static void check_reason(uint64_t reason)
{
    char name[48];

    for (uint64_t second = 0; second < 2; second++) {
        key_name((uint32_t)reason | second * SECOND_SYMBOLS, name, sizeof(name));
        must(*name != '\0');
        check_clean(name, strlen(name), "");
    }
}

/* A format, the print fmt of one, and a header_page: the same text. */
static void fuzz_format(const uint8_t *data, size_t size)
{
    struct event_type *type = &events[KVM_EXIT];
    struct page_layout page;

    options.table = VMEXIT;
    check_format(type, parse_format(type, text_of(data, size)));
    parse_symbols(text_of(data, size));
    for (size_t i = 0; i < SIZE(symbols); i++) {
        for (size_t j = 0; j < symbols[i].n; j++)
            check_reason(symbols[i].list[j].value);
    }
    check_reason(size);
    if (!parse_header_page(&page, text_of(data, size)))
        return;
    must(page.data < 64 && page.size > page.data && page.size <= page.data + COMMIT_LENGTH + 1);
    must(page.time.size == 8 && page.time.offset + 8 <= page.data);
    must(page.commit.size == 4 || page.commit.size == 8);
    must(page.commit.offset + page.commit.size <= page.data);
}

/* Sets the options by the bytes that choose how a recording is reported. */
static void choose_options(const uint8_t *choice)
{
    static const uint64_t intervals[] = {0, MIN_INTERVAL, NSEC / 10, NSEC, 1000ull * NSEC};
    int pid = choice[2] | choice[3] << 8;

    options.table = (enum table)(choice[0] % NTABLES);
    options.names = (choice[0] & 4) != 0;
    options.no_header = (choice[0] & 8) != 0;
    options.by_time = (choice[0] & 16) != 0;
    options.sums = (choice[0] & 128) != 0;
    options.no_zeros = choice[1] % 3 == 1;
    options.rows = choice[1] % 7;
    options.order = options.table == USUAL && choice[1] % 2 == 1 ? "exits" : NULL;
    options.stamp = "\0du\0"[choice[0] / 32 % 4];
    options.interval = intervals[choice[1] % SIZE(intervals)];
    options.decimals = choice[1] / 16 % 10;
    options.count = MAX_REPORTS;
    if (pid == 0)
        return;
    options.pids = resize_block(NULL, sizeof(int));
    *options.pids = pid;
    options.npids = 1;
    options.some = true;
}

/* Makes the checksums of a journal right in file, where an input has changed what they are of. */
static void set_checksums(const uint8_t *data, size_t size)
{
    const uint8_t *s = data;

    while ((s = memmem(s, (size_t)(data + size - s), checkpoint_magic, 8)) != NULL) {
        size_t left = (size_t)(data + size - s);
        uint64_t body = left < CHECKPOINT_SIZE ? UINT64_MAX : load(s + 8 + 8 * SIZE, 8);
        if (body <= left - CHECKPOINT_SIZE && left >= CHECKPOINT_SIZE) {
            uint64_t sum = checksum(0, s + SUMMED_FROM, CHECKPOINT_SIZE - SUMMED_FROM + body);
            must(pwrite(file, &sum, 8, s - data + 8 + 8 * SUM) == 8);
        }
        s += 8;
    }
}

/* Choices, then a recording. */
static void fuzz_recording(const uint8_t *data, size_t size)
{
    static char path[64];

    if (size < CHOICES)
        return;
    choose_options(data);
    data += CHOICES;
    size -= CHOICES;
    must(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    set_checksums(data, size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    options.read = path;
    source = &recorded_host;
    report_recording();
    if (input.cut) {
        must(ftruncate(whole, 0) == 0);
        input.at = input.formats;
        write_whole(whole);
    }
    leave(reading.lossy ? 3 : 0);
}

/* Words with a NUL behind each, as in /proc/PID/cmdline, but for the program's. */
static void fuzz_operands(const uint8_t *data, size_t size)
{
    char *argv[MAX_WORDS + 2] = {copy_text("kvmstat")};
    int argc = 1;

    for (size_t at = 0; at < size && argc <= MAX_WORDS; argc++) {
        const uint8_t *end = memchr(data + at, '\0', size - at);
        size_t length = end == NULL ? size - at : (size_t)(end - data) - at;
        argv[argc] = text_of(data + at, length);
        at += length + 1;
    }
    optind = 0; /* glibc: forget the last command line, too */
    getopt(1, argv, "+");
    parse_options(argc, argv);
    bool recorded = options.read != NULL;
    if (!recorded)
        complete_options();
    must(recorded ? options.kib == 0 && options.more == 0 : options.kib != 0);
    must(options.kib <= MAX_KIB && options.count <= UINT32_MAX);
    must((recorded && options.interval == 0) || options.interval >= MIN_INTERVAL);
    must(options.interval <= (uint64_t)MAX_INTERVAL * NSEC);
    must(options.decimals >= 0 && options.decimals <= 9 && options.table < NTABLES);
    must(options.stamp == 0 || options.stamp == 'd' || options.stamp == 'u');
    for (size_t i = 0; i < options.npids; i++)
        must(options.pids[i] > 0 && (recorded || options.pids[i] % 2 == 0));
}

/* Checks that what is escaped of name can be escaped, and tells name. */
static void check_name(const char *name)
{
    struct text t = {.s = NULL};
    unsigned byte;

    put_name(&t, name);
    check_clean(t.s, t.size, "");
    put_bytes(&t, "", 1);
    for (const char *s = t.s; *s != '\0'; s++, name++) {
        if (*s != '\\') {
            must(*s == *name);
        } else if (*++s == '\\') {
            must(*name == '\\');
        } else {
            must(sscanf(s, "x%2x", &byte) == 1 && byte == (uint8_t)*name);
            s += 2;
        }
    }
    must(*name == '\0');
}

/* A command line as in /proc/PID/cmdline; also the value of -name, and a name. */
static void fuzz_names(const uint8_t *data, size_t size)
{
    char *command = text_of(data, size), *value = text_of(data, size);
    size_t length = strlen(value);

    check_name(command);
    char *name = name_in_command(command, size);
    must(name == NULL || (*name != 0 && name >= command && name + strlen(name) <= command + size));
    if (name != NULL)
        check_name(name);
    name = qemu_name(value);
    must(name == value && strlen(name) <= length);
    check_name(name);
    cut_name(name);
    must(strlen(name) <= MAX_NAME);
}

/*
 * What libFuzzer calls.
 */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static char buffer[1 << 17]; /* more than what is said of an input, so that it is one text */

    (void)argc;
    (void)argv;
    setenv("TZ", "UTC0", 1);
    errors = fopencookie(NULL, "w", (cookie_io_functions_t){.write = look_at_errors});
    file = memfd_create("recording", MFD_CLOEXEC);
    whole = memfd_create("whole", MFD_CLOEXEC);
    first_data = malloc(DATA_SIZE);
    must(errors != NULL && file >= 0 && whole >= 0 && first_data != NULL);
    copy_section(first_data, __start_kvmstat_data, DATA_SIZE);
    setvbuf(errors, buffer, _IOFBF, sizeof(buffer));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (setjmp(next_input) == 0)
        targets[FUZZ](data, size);
    fflush(errors);
    forget();
    return 0;
}

/*
 * Changes the input: anyhow, or half of the time a few bytes only, so that what is behind
 * them stays where sizes and offsets say that it is.
 */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    if (seed % 2 == 0 || size < FEW)
        return LLVMFuzzerMutate(data, size, max);
    /* The first bytes, which choose how the others are taken, more often than these. */
    size_t at = seed % 16 == 1 ? 0 : seed / 16 % (size - FEW + 1);
    LLVMFuzzerMutate(data + at, FEW, FEW);
    return size;
}
