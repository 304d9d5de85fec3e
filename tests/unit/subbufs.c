/*
 * subbufs - the decoder of sub-buffers, whatever is in them
 *
 * A part of unit.c, which includes it.
 */

#define HEADER 16        /* layout64's data */
#define START 1000000000 /* the time stamp of sub-buffers made here */

/* The first word of an event. */
static uint32_t word_of(uint32_t type, uint32_t delta)
{
    return delta << 5 | type;
}

/* A sub-buffer with size bytes of events, nothing behind them; to be freed. */
static uint8_t *make_page(const void *data, size_t size, uint64_t commit)
{
    uint8_t *p = resize(NULL, HEADER + size, 1);
    uint64_t time = START;

    memcpy(p, &time, 8);
    memcpy(p + 8, &commit, 8);
    memcpy(p + HEADER, data, size);
    return p;
}

/* How the reading of a sub-buffer went. */
struct walk {
    int end;            /* subbuf_next()'s last answer; 2 if subbuf_open() refused */
    size_t n;           /* events */
    struct record last; /* the last one; its data is no longer there */
    bool outside;       /* an event was outside the data, or they do not end */
};

/* Reads all of the size bytes at p. */
static struct walk walk(const uint8_t *p, size_t size)
{
    struct walk w = {.end = 2};
    struct subbuf b;
    struct record r;

    if (!subbuf_open(&b, p, size, &layout64))
        return w;
    while ((w.end = subbuf_next(&b, &r)) == 1 && !w.outside) {
        w.n++;
        w.last = r;
        w.outside = r.data < p + HEADER || r.data > p + size ||
                    r.size > (size_t)(p + size - r.data) || w.n > size / 4;
    }
    return w;
}

/* The same of a sub-buffer with the given bytes of events. */
static struct walk walk_data(const void *data, size_t size)
{
    uint8_t *p = make_page(data, size, size);
    struct walk w = walk(p, HEADER + size);

    free(p);
    return w;
}

/*
 * Tests a sub-buffer with a single event, of the given words: how it ends, which
 * time it has, how many bytes of data; and each of its beginnings, which are
 * nothing or make no sense.
 */
static void is_event(const uint32_t *words, size_t size, int events_in_it, uint64_t time,
    size_t data, const char *name)
{
    struct walk w = walk_data(words, size);
    bool right = w.end == 0 && !w.outside && w.n == (size_t)events_in_it;
    bool empty = (words[0] & TYPE_MASK) == TYPE_PADDING && words[0] >> 5 == 0;

    if (events_in_it == 1)
        right &= w.last.time == time && w.last.size == data;
    for (size_t cut = 0; cut < size; cut++) {
        w = walk_data(words, cut);
        right &= w.n == 0 && !w.outside && w.end == (cut == 0 || (empty && cut >= 4) ? 0 : -1);
    }
    ok(right, "%s", name);
}

static void test_event_types(void)
{
    uint32_t words[32] = {0};
    char name[128];

    for (uint32_t type = 1; type <= 28; type++) {
        words[0] = word_of(type, 5);
        snprintf(name, sizeof(name), "type %u has %u bytes of data", type, type * 4);
        is_event(words, 4 + type * 4, 1, START + 5, type * 4, name);
    }
    words[0] = word_of(0, 0x7ffffff);
    for (words[1] = 4; words[1] <= 116; words[1] += 28) {
        snprintf(name, sizeof(name), "type 0 has a length: %u, itself included", words[1]);
        is_event(words, 4 + words[1], 1, START + 0x7ffffff, words[1] - 4, name);
    }
    words[1] = 16;
    words[0] = word_of(29, 0);
    is_event(words, 20, 0, 0, 0, "type 29 with no delta: the rest is empty");
    words[0] = word_of(29, 1);
    is_event(words, 20, 0, 0, 0, "type 29 with a delta is skipped");
    words[0] = word_of(30, 1);
    is_event(words, 8, 0, 0, 0, "type 30 is no event of its own");
    words[0] = word_of(31, 1);
    is_event(words, 8, 0, 0, 0, "type 31 is no event of its own");
}

/* All types one after the other. */
static void test_event_times(void)
{
    static const uint64_t high = (uint64_t)5 << 59;
    uint32_t words[] = {
        29 | 7 << 5, 12, 1, 2,          /* a discarded event: its delta counts */
        2 | 1 << 5, 11, 12,             /* event 1 */
        30 | 3 << 5, 2,                 /* 2 * 2^27 + 3 later */
        1 | 4 << 5, 21,                 /* event 2 */
        31 | 9u << 5, 0xabcdef,         /* 0xabcdef * 2^27 + 9 since boot */
        0 | 2 << 5, 8, 31,              /* event 3 */
        29, 0xffffffff, 30, 0xffffffff, /* the rest is empty, whatever stands there */
    };
    uint8_t *p = make_page(words, sizeof(words), sizeof(words));
    uint64_t time = high + START;
    struct subbuf b;
    struct record r;

    memcpy(p, &time, 8);
    ok(subbuf_open(&b, p, HEADER + sizeof(words), &layout64) && !b.missed, "a sub-buffer opens");
    time += 8;
    ok(subbuf_next(&b, &r) == 1 && r.time == time && r.size == 8 && load(r.data, 4) == 11,
        "the first event's stamp is the page's and the deltas up to it");
    time += (2u << 27) + 7;
    ok(subbuf_next(&b, &r) == 1 && r.time == time && r.size == 4 && load(r.data, 4) == 21,
        "a time extend adds to the stamp");
    time = high + ((uint64_t)0xabcdef << 27) + 11;
    ok(subbuf_next(&b, &r) == 1 && r.time == time && r.size == 4 && load(r.data, 4) == 31,
        "an absolute stamp replaces all but the five highest bits");
    ok(subbuf_next(&b, &r) == 0 && subbuf_next(&b, &r) == 0, "the end stays the end");
    free(p);
}

/* A stamp that no clock shows would be waited for in vain. */
static void test_leap(void)
{
    uint32_t words[] = {30 | 1 << 5, 0, 1 | 1 << 5, 1};
    uint8_t *p = make_page(words, sizeof(words), sizeof(words));
    uint64_t time = INT64_MAX - 1;

    memcpy(p, &time, 8);
    ok(walk(p, HEADER + sizeof(words)).n == 1, "a time extend may reach the largest stamp");
    time++;
    memcpy(p, &time, 8);
    ok(walk(p, HEADER + sizeof(words)).end == -1, "one that goes over it makes no sense");
    free(p);
}

/* Lengths that cannot be. */
static void test_lengths(void)
{
    static const uint32_t types[] = {0, 29 | 1 << 5};
    bool right = true;

    for (size_t i = 0; i < SIZE(types); i++) {
        static const uint32_t lengths[] = {
            0, 1, 3, 13, 16, 0x7fffffff, 0x80000000, 0xfffffffc, UINT32_MAX};
        for (size_t j = 0; j < SIZE(lengths); j++) {
            uint32_t words[] = {types[i], lengths[j], 0, 0};
            struct walk w = walk_data(words, sizeof(words));
            right &= w.end == -1 && w.n == 0 && !w.outside;
        }
        uint32_t words[] = {types[i], 12, 0, 0};
        right &= walk_data(words, sizeof(words)).end == 0;
    }
    ok(right, "a length that is shorter than itself or goes over the end makes no sense");
}

static void test_commit(void)
{
    static const struct {
        uint64_t word; /* the commit word */
        size_t size;   /* the length in it */
        bool missed;   /* events were lost */
    } commits[] = {
        {0, 0, false},
        {0xfd8, 0xfd8, false},
        {0xff0, 0xff0, false},
        {0x80000010, 0x10, true},
        {0xffffffffc0000fd8, 0xfd8, true},
        {0xffffffff80000ff0, 0xff0, true},
        {0xffffffffc0000000, 0, true},
        {0x40000fd8, 0xfd8, false},
    };
    uint8_t p[PAGE] = {0};
    struct subbuf b;
    bool right = true;

    for (size_t i = 0; i < SIZE(commits); i++) {
        memcpy(p + 8, &commits[i].word, 8);
        right &= subbuf_open(&b, p, PAGE, &layout64) && b.size == commits[i].size &&
                 b.missed == commits[i].missed && b.data == p + 16 && b.at == 0;
        memset(p + 12, 0xff, 4); /* is the first event there */
        right &= subbuf_open(&b, p, PAGE, &layout32) && b.size == commits[i].size &&
                 b.missed == commits[i].missed && b.data == p + 12 && b.at == 0;
    }
    ok(right, "the commit word's length and flags are told apart, also if it is sign-extended");
    right = true;
    for (uint64_t size = PAGE - HEADER + 1; size <= 0xfffff; size++) {
        memcpy(p + 8, &size, 8);
        right &= !subbuf_open(&b, p, PAGE, &layout64);
    }
    ok(right, "a length that is larger than the page is refused");
    right = true;
    uint8_t *whole = make_page("", 0, 0);
    for (size_t size = 0; size < HEADER; size++) {
        uint8_t *part = boxed(whole, size);
        right &= walk(part, size).end == 2;
        free(part);
    }
    free(whole);
    ok(right, "a page without all of its header is refused");
}

/* Bytes by chance end, and nothing outside of them is read. */
static void test_random_pages(void)
{
    enum { PAGES = 200000, MOST = 96 };
    size_t ends[2] = {0};
    bool right = true;

    for (int i = 0; i < PAGES; i++) {
        uint32_t words[MOST / 4];
        for (size_t j = 0; j < SIZE(words); j++) {
            words[j] = (uint32_t)chance();
            if (chance() % 2 == 0)
                words[j] &= 0xff; /* what looks like a length */
        }
        struct walk w = walk_data(words, (size_t)(chance() % (MOST + 1)));
        right &= !w.outside;
        ends[w.end == 0]++;
    }
    ok(right && ends[0] > PAGES / 100 && ends[1] > PAGES / 100,
        "%d sub-buffers with bytes by chance end inside", PAGES);
}

/* The same of real sub-buffers with some bytes changed. */
static void test_damaged_pages(void)
{
    enum { ROUNDS = 20000 };
    size_t ends[3] = {0};
    bool right = true;
    uint8_t p[PAGE];

    load_capture("svm-6.1-mix2.dat", HARDWARE);
    for (int i = 0; i < ROUNDS; i++) {
        off_t page = (off_t)(chance() % 50) * PAGE;
        if (pread(reading.streams[0].fd, p, PAGE, page) != PAGE)
            bail_out("reading a sub-buffer: %s", strerror(errno));
        for (uint64_t n = chance() % 8; n > 0; n--)
            p[8 + chance() % 100] = (uint8_t)chance();
        /* Cut, too: read() gave less. */
        size_t size = chance() % 2 == 0 ? PAGE : chance() % PAGE;
        uint8_t *part = boxed(p, size);
        struct walk w = walk(part, size);
        free(part);
        right &= !w.outside;
        ends[w.end < 0 ? 1 : w.end]++;
    }
    ok(right && ends[0] > 100 && ends[1] > 100 && ends[2] > 100,
        "%d damaged sub-buffers of a real host end inside", ROUNDS);
}

/* Puts a page with one word of events, header, into CPU 0's buffer, and counts. */
static void count_page(uint32_t header, uint64_t commit)
{
    uint8_t p[PAGE] = {0};

    make_host(HARDWARE, 1);
    memcpy(p + 8, &commit, 8);
    memcpy(p + HEADER, &header, 4);
    if (pwrite(reading.streams[0].fd, p, PAGE, 0) == PAGE)
        drain_buffers(UINT64_MAX);
}

static void count_senseless_page(void)
{
    count_page(word_of(30, 0), 4);
}

static void count_large_page(void)
{
    count_page(0, PAGE);
}

static void count_page_without_stats(void)
{
    trace.dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    count_page(0, 0x80000004);
}

static void test_fatal_pages(void)
{
    is_fatal(count_senseless_page,
        "kvmstat: CPU 0: a sub-buffer that makes no sense (is this kernel newer than kvmstat?)\n",
        "a sub-buffer that makes no sense ends kvmstat");
    is_fatal(count_large_page,
        "kvmstat: CPU 0: a sub-buffer that is larger than it can be (is this kernel newer than "
        "kvmstat?)\n",
        "a sub-buffer that is too large ends kvmstat");
    is_fatal(count_page_without_stats,
        "kvmstat: per_cpu/cpu0/stats: No such file or directory (see DIAGNOSTICS in kvmstat(1))\n",
        "losses that cannot be counted end kvmstat");
}

static const struct test subbufs_tests[] = {
    {"event_types", test_event_types},
    {"event_times", test_event_times},
    {"leap", test_leap},
    {"lengths", test_lengths},
    {"commit", test_commit},
    {"random_pages", test_random_pages},
    {"damaged_pages", test_damaged_pages},
    {"fatal_pages", test_fatal_pages},
};
