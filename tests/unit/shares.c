/*
 * shares - how much CPU time the vCPUs' threads had (-c)
 *
 * A part of unit.c, which includes it.
 */

/* Makes a file in the temporary directory's dir say what text says; NULL: removes both. */
static void set_file(const char *dir, const char *name, const char *text)
{
    char path[64];

    mkdirat(temporary, dir, 0700);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlinkat(temporary, path, 0);
    int fd = text == NULL ? -1 : openat(temporary, path, O_WRONLY | O_CREAT, 0600);
    if (text != NULL && write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        bail_out("%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (text == NULL)
        unlinkat(temporary, dir, AT_REMOVEDIR);
}

/*
 * Makes the file of thread tid of process 1 say what text says, for an observer that takes the
 * temporary directory for procfs; NULL: removes it.
 */
static void set_schedstat(int tid, const char *text)
{
    char dir[32];

    mkdirat(temporary, "1", 0700);
    mkdirat(temporary, "1/task", 0700);
    snprintf(dir, sizeof(dir), "1/task/%d", tid);
    set_file(dir, "schedstat", text);
}

/* A vCPU that thread 7 runs, whose times were read a second ago: 5 s and 2 s. */
static struct vcpu *read_before(void)
{
    clear();
    start_observer(temporary);
    struct vcpu *v = add_vcpu(1, 0);
    v->tid = 7;
    v->read_at = now(CLOCK_MONOTONIC) - NSEC;
    v->times[RUN] = 5ull * NSEC;
    v->times[WAIT] = 2ull * NSEC;
    return v;
}

/* Whether hundredths of a per cent are some parts of a thousand, but for the time of the test. */
static bool is_about(uint64_t hundredths, uint64_t thousandths)
{
    return hundredths <= thousandths * 10 && hundredths + 500 >= thousandths * 10;
}

static void test_shares(void)
{
    struct vcpu *v = read_before();

    set_schedstat(7, "5500000000 2250000000 1234\n");
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless && is_about(v->tally.shares[RUN], 500) &&
            is_about(v->tally.shares[WAIT], 250),
        "shares are of the time between two readings");
    ok(v->spent[RUN] == NSEC / 2 && v->spent[WAIT] == NSEC / 4, "and the times are summed up");
    v = read_before();
    set_schedstat(7, "6100000000 2000000000 1234\n");
    set_shares(1, &v, 1, 0);
    ok(v->tally.shares[RUN] == 10000, "none is larger than the whole");
    v = read_before();
    options.interval = 4ull * NSEC;
    v->shares[RUN] = 1234;
    set_shares(1, &v, 1, 0);
    options.interval = 0;
    ok(v->tally.shares[RUN] == 1234 && v->spent[RUN] == 0, "too soon: those of the reading before");
    v = read_before();
    note_thread(v, NO_THREAD);
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless, "a vCPU that has no thread any more: not known");
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless && v->tally.shares[RUN] == 0, "then 0, as of one that never ran");
}

/* A process whose CPU time stands still. */
static void test_still_shares(void)
{
    struct vcpu *v = read_before();

    set_schedstat(7, "5500000000 2250000000 1234\n");
    v->used = 9;
    set_shares(1, &v, 1, 9);
    ok(!v->tally.shareless && v->tally.shares[RUN] == 0 && v->tally.shares[WAIT] == 0 &&
            v->times[RUN] == 5ull * NSEC,
        "no thread ran where the process used no CPU time: nothing is read");
    v->read_at -= NSEC;
    set_shares(1, &v, 1, 10);
    ok(v->tally.shares[RUN] > 4000 && v->used == 10, "one may have run where it did");
    v = read_before();
    v->used = 9;
    note_thread(v, 8);
    set_schedstat(8, "6500000000 2250000000 1234\n");
    set_shares(1, &v, 1, 9);
    ok(v->tally.shareless && v->times[RUN] == 6500000000, "another thread is read all the same");
    set_schedstat(7, NULL);
    set_schedstat(8, NULL);
}

static void test_unknown_shares(void)
{
    struct vcpu *v = read_before();

    v->read_at = 0;
    set_schedstat(7, "5500000000 2250000000 1234\n");
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless && v->spent[RUN] == 0, "the first reading tells no share");
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless && v->tally.shares[RUN] == 0, "the second one does");
    v = read_before();
    note_thread(v, 8);
    set_schedstat(8, "6500000000 2250000000 1234\n");
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless && v->spent[RUN] == 0, "nor does the first one of another thread");
    v = read_before();
    *birth_of(7) = (struct birth){.tid = 7, .pid = 1, .is_fresh = true};
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless && v->spent[RUN] == 0, "or of a new thread with the same id");
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless, "but the second one does");
    v = read_before();
    *birth_of(7) = (struct birth){.tid = 7 + BIRTHS, .pid = 1, .is_fresh = true};
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless, "the birth of a thread of the same slot is another one's");
    v = read_before();
    set_schedstat(7, "4900000000 2250000000 1234\n");
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless && v->spent[WAIT] == 0, "times that fell are another thread's");
    v = read_before();
    set_schedstat(7, "0 0 0\n");
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless && v->tid == 0, "a kernel that keeps no times says so by zeros");
    set_schedstat(7, NULL);
    set_schedstat(8, NULL);
    v = read_before();
    unlinkat(temporary, "1/task", AT_REMOVEDIR);
    unlinkat(temporary, "1", AT_REMOVEDIR);
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless && v->tid == 0, "no directory of threads");
}

/* A vCPU that was unplugged: its thread has ended. */
static void test_ended_shares(void)
{
    struct vcpu *v = read_before();
    struct vm m = {.guest = guest_of(1, 0), .name = ".", .vcpus = (long[]){0}, .nvcpus = 1};

    v->recent = true;
    set_schedstat(7, NULL);
    set_shares(1, &v, 1, 0);
    ok(v->tally.shareless, "a thread that has ended: what it did until then is not known");
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless && v->tally.shares[RUN] == 0, "then 0");
    is_text(states[state_of(v)], "gone", "and the vCPU is gone");
    view.debugfs = temporary;
    set_file("vcpu0", "pid", "7\n");
    find_last_threads(&m);
    set_shares(1, &v, 1, 0);
    ok(!v->tally.shareless, "debugfs tells that thread for ever");
    set_file("vcpu0", "pid", "8\n");
    find_last_threads(&m);
    ok(v->tid == 8, "until another one runs it");
    set_file("vcpu0", "pid", NULL);
    view.debugfs = -1;
    v->ended = true;
    note_vcpu(thread_of(8, m.guest), 0);
    ok(v->tid == 8 && !v->ended, "or an event tells of it");
    unlinkat(temporary, "1/task", AT_REMOVEDIR);
    unlinkat(temporary, "1", AT_REMOVEDIR);
}

/* A vCPU that one thread runs, then another one, then the first one again. */
static void test_moved_shares(void)
{
    struct vcpu *v = read_before();
    struct thread *first = thread_of(7, guest_of(1, 0)), *second = thread_of(8, guest_of(1, 0));

    note_vcpu(first, 0);
    ok(v->tid == 7 && v->read_at != 0, "the thread that runs it is the one that was read");
    note_vcpu(second, 0);
    note_vcpu(first, 0);
    ok(v->tid == 7 && v->read_at == 0, "another one did meanwhile: its times are not known");
    v = read_before();
    first = thread_of(7, guest_of(1, 0));
    note_vcpu(first, 0);
    note_vcpu(first, 1);
    ok(v->tid == 0 && vcpu_of(guest_of(1, 0), 1)->tid == 7,
        "a thread that goes on with another vCPU");
}

/* A thread of which neither events nor debugfs tell: that of the only vCPU. */
static void test_only_vcpu_share(void)
{
    clear();
    struct vcpu *v = add_vcpu(getpid(), 3);
    v->recent = true;
    struct thread *t = thread_of(getpid(), guest_of(getpid(), 0));
    t->active = t->ran = true;
    find_all_vcpus();
    ok(v->tid == getpid(), "a thread that has events runs the only vCPU");
}

static const struct test shares_tests[] = {
    {"ended_shares", test_ended_shares},
    {"moved_shares", test_moved_shares},
    {"only_vcpu_share", test_only_vcpu_share},
    {"shares", test_shares},
    {"still_shares", test_still_shares},
    {"unknown_shares", test_unknown_shares},
};
