/*
 * threads - threads, the processes that they are of, and the rows of vCPUs
 *
 * A part of unit.c, which includes it.
 */

/* Makes a CPU with the given event, and counts it. */
static void count_one(const struct sent *e)
{
    uint8_t record[EVENT];
    struct stream s = {.next = {.time = 1, .data = record, .size = EVENT}};

    encode(e, record);
    count(&s);
}

/* Makes task_newtask known, which no recording has. */
static void add_newtask(void)
{
    char format[] = "name: task_newtask\nID: 77\nformat:\n"
                    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
                    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
                    "\tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n"
                    "\tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n"
                    "\tfield:unsigned long clone_flags;\toffset:32;\tsize:8;\tsigned:0;\n";

    parse_format(&events[TASK_NEWTASK], format);
    event_of_id[events[TASK_NEWTASK].id] = &events[TASK_NEWTASK];
}

/* Thread parent starts child, a thread of the same process or another process. */
static struct sent newtask(int parent, int child, bool is_thread)
{
    return (struct sent){TASK_NEWTASK, parent,
        {[PID] = (uint64_t)child, [CLONE_FLAGS] = is_thread ? CLONE_THREAD : 0}};
}

static void start_task(int parent, int child, bool is_thread)
{
    struct sent e = newtask(parent, child, is_thread);

    count_one(&e);
}

static void start_thread(int parent, int child)
{
    start_task(parent, child, true);
}

/* Which process a thread's events are put down to, once the thread is gone. */
static void test_processes(void)
{
    make_host(HARDWARE, 1);
    add_newtask();
    start_thread(TID, TID + 1);
    start_thread(TID + 1, TID + 2);
    struct sent e = vmx_exit(TID + 2, 3, 12);
    count_one(&e);
    ok(counts_of(TID, 3)[HALTX] == 1,
        "a thread that is gone counts for the process that started it");
    e = vmx_exit(TID + 3, 3, 12);
    count_one(&e);
    ok(counts_of(TID + 3, 3)[HALTX] == 1, "a process counts for itself");
    e = vmx_exit(TID + 4, 3, 12);
    world.births[TID % BIRTHS + 4] = (struct birth){.tid = TID + 4};
    count_one(&e);
    ok(world.unknown == 1 && known_guest(TID + 4) == NULL,
        "one that nobody was seen to start, and that is gone, counts nowhere, and that is noted");
    ok(world.nguests == 2 && world.guests[0]->pid == TID,
        "the one who starts a thread is no guest by that");
    start_task(TID + 2, TID + 40, false);
    e = vmx_exit(TID + 40, 0, 12);
    count_one(&e);
    ok(counts_of(TID + 40, 0)[HALTX] == 1, "a process that a thread started is one of its own");
    start_thread(TID + 10, TID + 11);
    start_thread(TID + 11, TID + 10);
    ok(pid_of(TID + 10, 0) == TID + 10 && pid_of(TID + 11, 0) == TID + 10,
        "numbers that came into use again are no endless loop");
    start_thread(TID + 20, TID + 21 + (int)BIRTHS);
    start_thread(TID + 30, TID + 21);
    ok(pid_of(TID + 21, 0) == TID + 30 && pid_of(TID + 21 + (int)BIRTHS, 0) == 0,
        "a later thread in the same place is not taken for the earlier one");
    uint64_t t = now(CLOCK_MONOTONIC);
    ok(pid_of((int)getpid(), t) == (int)getpid(), "a process that is there is found by /proc");
    usleep(50000); /* more than a clock tick */
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    ok(process_then(child, now(CLOCK_MONOTONIC)) == child && process_then(child, t) == 0,
        "but not for an event before its start");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* Which process one is that is just ending. */
static void test_ending(void)
{
    enum { PROCESSES = 3000 };
    int right = 0;

    clear();
    signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        bool same = child > 0;
        int process;
        while (same && kill(child, 0) == 0)
            same = (process = process_then(child, now(CLOCK_MONOTONIC))) == child || process <= 0;
        right += same;
    }
    signal(SIGCHLD, SIG_DFL);
    ok(right == PROCESSES, "each of %d processes is its own, or none, while it ends", PROCESSES);
}

/*
 * A thread's number that comes into use again, in the process and in another one.  Exits of e
 * count in counter.
 */
static void use_again(enum host host, const struct sent *e, enum counter counter)
{
    const char *name = host == HARDWARE ? "told by events" : "found by debugfs";
    struct sent same = newtask(TID, e->tid, true), other = newtask(TID + 50, e->tid, true);

    make_host(host, 1);
    add_newtask();
    add_vcpu(TID, 0);
    add_vcpu(TID + 50, 0);
    add_thread(e->tid, TID, 0);
    put(0, 1, e);
    put(0, 2, &same);
    put(0, 3, e);
    read_until(4);
    ok(known_thread(e->tid)->guest->pid == TID, "vCPU %s: another thread of the same process",
        name);
    put(0, 5, &other);
    put(0, 6, e);
    read_until(6);
    ok(counts_of(TID, 0)[counter] == 2, "one of another: the first one's counts stay");
    put(0, 7, e);
    put(0, 8, e);
    read_until(9);
    count_all();
    ok(counts_of(TID, 0)[counter] == 2 && counts_of(TID + 50, 0)[counter] == 3,
        "and the other's are its own");
}

static void test_used_again(void)
{
    const struct sent fault = vmx_exit(TID + 1, 0, 48);

    use_again(HARDWARE, &fault, EPTV);
}

static void test_used_again_software(void)
{
    const struct sent halt = {KVM_USERSPACE_EXIT, TID + 1, {[REASON] = 5}};

    use_again(SOFTWARE, &halt, HALTX);
}

/*
 * A process's number that comes into use again, as procfs told and no event: with -p, births of
 * other processes are not traced.
 */
static void test_replaced(void)
{
    const struct sent instruction = {.event = KVM_EMULATE_INSN, .tid = TID};

    make_host(SOFTWARE, 1);
    for (uint64_t time = 1; time <= 3; time++)
        put(0, time, &instruction);
    read_until(4);
    struct guest *former = known_guest(TID);
    former->gone = 0; /* there is no such process, which was found as it was met */
    end_guest(former, 6);
    for (uint64_t time = 5; time <= 7; time++)
        put(0, time, &instruction);
    read_until(8);
    const struct thread *t = known_thread(TID);
    ok(former->nvcpus == 1 && former->vcpus[0]->tally.counts[EMUL] == 4,
        "what a process did before another got its number is its own");
    ok(t->guest != former && t->guest == known_guest(TID) && t->pending.counts[EMUL] == 2,
        "and what was done since is the other's");
}

/* What is no event that counts. */
static void test_ignored(void)
{
    uint8_t record[EVENT] = {0};
    struct stream s = {.next = {.time = 1, .data = record, .size = 0}};
    struct sent e = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 1);
    count(&s);
    s.next.size = EVENT;
    count(&s); /* of type 0 */
    memset(record, 0xff, EVENT);
    count(&s); /* of a type that nobody asked for */
    encode(&e, record);
    for (s.next.size = 0; s.next.size < 8; s.next.size++) {
        uint8_t *part = boxed(record, s.next.size);
        s.next.data = part;
        count(&s); /* too short for common_pid */
        free(part);
    }
    s.next.data = record;
    struct sent idle = vmx_exit(0, 0, 12), negative = vmx_exit(-1, 0, 12);
    count_one(&idle);
    count_one(&negative);
    ok(world.nguests == 0 && world.nthreads == 0, "what has no known type or no thread is ignored");
    s.next.size = events[KVM_EXIT].fields[VCPU_ID].offset;
    count(&s);
    ok(counts_of(TID, 0)[HALTX] == 1, "a field that is behind the end of its event is 0");
}

/* Many threads and guests. */
static void test_threads(void)
{
    enum { THREADS = 3000 };
    bool same = true;

    make_host(HARDWARE, 1);
    for (int round = 1; round <= 2; round++) {
        for (int i = THREADS - 1; i >= 0; i--) {
            struct sent e = vmx_exit(TID + i * 16, (uint64_t)i, 12);
            count_one(&e);
        }
    }
    for (int i = 0; i < THREADS; i++)
        same &= counts_of(TID + i * 16, i)[HALTX] == 2 && world.guests[i]->pid == TID + i * 16;
    ok(same && world.nguests == THREADS, "%d threads count apart from each other", THREADS);
}

/* Which vCPU the events of a thread count for that do not tell it. */
static void test_find_vcpu(void)
{
    struct sent e = {KVM_USERSPACE_EXIT, TID, {[REASON] = 5}};

    make_host(SOFTWARE, 1);
    add_vcpu(TID, 4);
    vcpu_of(guest_of(TID, 0), 5); /* of a virtual machine that is gone */
    count_one(&e);
    find_all_vcpus();
    ok(counts_of(TID, 4)[HALTX] == 1, "a guest's only vCPU is the one that its threads run");
    make_host(SOFTWARE, 1);
    add_vcpu(TID, 0);
    add_vcpu(TID, 1);
    count_one(&e);
    find_all_vcpus();
    ok(counts_of(TID, UNKNOWN_VCPU)[HALTX] == 1, "what nothing tells counts for the vCPU `?'");
    make_host(SOFTWARE, 1);
    add_vcpu(TID, 0);
    view.cut = true;
    count_one(&e);
    find_all_vcpus();
    view.cut = false;
    ok(counts_of(TID, UNKNOWN_VCPU)[HALTX] == 1,
        "after a look that was cut, the only vCPU that is known may not be the only one");
    make_host(SOFTWARE, 1);
    add_vcpu(TID, 0);
    guest_of(TID, 0)->read_at = 1; /* as the event came, or before */
    count_one(&e);
    ok(guest_of(TID, 0)->stale, "a new thread has the guest's descriptors read again");
    find_all_vcpus();
    ok(counts_of(TID, 0)[HALTX] == 0 && counts_of(TID, UNKNOWN_VCPU)[HALTX] == 1,
        "until then, it may run a vCPU that was made later than the only one that is known");
    make_host(SOFTWARE, 1);
    struct guest *ending = guest_of((int)getpid(), 0); /* as if it had closed its descriptors */
    e.tid = ending->pid;
    set_present(add_vcpu(ending->pid, 0), true);
    ending->read_at = 1;
    count_one(&e);
    view.left = FIRST_LOOK;
    read_guest(ending);
    settle_owners();
    find_all_vcpus();
    ok(ending->looked > 1 && !ending->vcpus[0]->present &&
            counts_of(ending->pid, UNKNOWN_VCPU)[HALTX] == 1,
        "a look that finds none any more does not tell that it had no other one");
    e.tid = TID;
    for (int later = 0; later < 2; later++) {
        make_host(SOFTWARE, 1);
        set_present(add_vcpu(TID, 3), true);
        set_present(vcpu_of(guest_of(TID, 0), 3), false);
        if (later != 0)
            clear_counts(); /* as a report does */
        count_one(&e);
        find_all_vcpus();
        ok(counts_of(TID, later != 0 ? UNKNOWN_VCPU : 3)[HALTX] == 1,
            later != 0 ? "but none that it lost before the last report"
                       : "a guest that has just lost its only vCPU ran that one");
    }
    make_host(BEFORE_5_10, 1);
    struct sent leaving = vmx_exit(TID, 0, 12), entry = {KVM_ENTRY, TID, {[VCPU_ID] = 9}};
    count_one(&leaving);
    count_one(&entry);
    count_one(&leaving);
    ok(counts_of(TID, 9)[HALTX] == 2, "an exit before the first entry is that vCPU's, too");
    for (uint64_t i = 0; i < 10; i++) {
        entry.values[VCPU_ID] = i % 2;
        count_one(&entry);
        count_one(&leaving);
    }
    ok(counts_of(TID, 0)[HALTX] == 5 && counts_of(TID, 1)[HALTX] == 5,
        "one thread that runs two vCPUs counts for each of them");
}

/* A number in a thread's name is KVM's only if KVM's have no gap. */
static void test_named_vcpu(void)
{
    static const long ids[] = {0, 1, 2, 4, 5, 6, 3};

    prctl(PR_SET_NAME, "CPU 4/KVM");
    make_host(SOFTWARE, 1);
    for (size_t i = 0; i < SIZE(ids); i++) {
        ok(i == 0 || vcpu_by_name(guest_of(TID, 0), getpid()) == (i <= 3 ? 4 : -1),
            "CPU 4/KVM of %zu vCPUs: %s", i, i <= 3 ? "KVM's number" : "no number of KVM's");
        add_vcpu(TID, ids[i]);
    }
    ok(vcpu_by_name(guest_of(TID, 0), getpid()) == 4, "of 7, without a gap: KVM's");
    prctl(PR_SET_NAME, "unit");
}

/* On arm64, kvm_get_timer_map tells the vCPU: when it is loaded, put or made. */
static void test_timer_map(void)
{
    enum { MAKER = TID + 1 };
    struct sent fault = {KVM_EXIT, TID, {[RET] = 2, [ESR_EC] = 0x24}};
    struct sent halt = {KVM_EXIT, TID, {[RET] = 2, [ESR_EC] = 1}};
    struct sent halt_of_maker = {KVM_EXIT, MAKER, {[RET] = 2, [ESR_EC] = 1}};
    struct sent load = {KVM_GET_TIMER_MAP, TID, {[VCPU_ID] = 1}};
    struct sent made = {KVM_GET_TIMER_MAP, MAKER, {[VCPU_ID] = 1}};
    struct sent mmio = {KVM_MMIO, TID, {[TYPE] = MMIO_WRITE}};

    load_formats("arm64-6.1-mix2.dat", HARDWARE, 1);
    world.births[MAKER % BIRTHS] = (struct birth){.tid = MAKER, .pid = TID};
    for (made.values[VCPU_ID] = 0; made.values[VCPU_ID] < 3; made.values[VCPU_ID]++)
        count_one(&made);
    count_one(&halt);
    count_one(&load);
    ok(counts_of(TID, 1)[HALTX] == 1, "what a thread did before its vCPU was told is that one's");
    count_one(&halt);
    ok(counts_of(TID, 1)[HALTX] == 2, "and what it does then");
    made.values[VCPU_ID] = 0;
    count_one(&made);
    count_one(&halt_of_maker);
    ok(counts_of(TID, 0)[HALTX] == 1 && counts_of(TID, 2)[EXITS] == 0,
        "a thread that made several vCPUs runs the one that it loaded");
    count_one(&fault);
    count_one(&load); /* it was put and loaded, before KVM knew what the fault was */
    count_one(&mmio);
    count_one(&fault);
    load.values[VCPU_ID] = 2;
    count_one(&load);
    count_one(&halt);
    ok(counts_of(TID, 1)[MMIOX] == 1 && counts_of(TID, 1)[EPTV] == 1 &&
            counts_of(TID, 2)[HALTX] == 1 && counts_of(TID, 2)[EPTV] == 0,
        "one that runs two vCPUs counts for each of them, also what comes late");
}

/* What a recording keeps of a thread that only made a vCPU, on arm64. */
static void test_maker(void)
{
    struct sent made = {KVM_GET_TIMER_MAP, TID, {[VCPU_ID] = 0}};
    struct sent halt = {KVM_EXIT, TID, {[RET] = 2, [ESR_EC] = 1}};

    load_formats("arm64-6.1-mix2.dat", HARDWARE, 1);
    count_one(&made);
    output.name = "a recording";
    known_guest(TID)->asked = true;
    save_thread(known_thread(TID));
    ok(known_guest(TID)->ended_threads.size == 0, "a thread that only makes a vCPU runs none");
    count_one(&halt);
    save_thread(known_thread(TID));
    ok(known_guest(TID)->ended_threads.size == ENTRY_SIZE, "until it does");
    output.name = NULL;
}

/* What a recording keeps of a thread that ran several vCPUs, where events do not tell which. */
static void test_moved(void)
{
    make_host(SOFTWARE, 1);
    add_vcpu(TID, 0);
    add_vcpu(TID, 1);
    add_thread(TID, TID, 0);
    struct thread *t = known_thread(TID);
    t->ran = true;
    output.name = "a recording";
    save_thread(t);
    t->ran_last = 1; /* as debugfs tells */
    find_host_vcpu(t);
    ok(t->vcpu == NULL && t->known == MIXED, "a thread runs another vCPU than before");
    find_host_vcpu(t);
    ok(t->vcpu == NULL, "who did so once may do so at any time");
    save_thread(t);
    output.name = NULL;
    const uint8_t *entries = (const uint8_t *)t->guest->ended_threads.s;
    ok(entry_vcpu(entries, 0) == 0 && entry_vcpu(entries, 1) == UNKNOWN_VCPU,
        "no vCPU has all that it counted, in a recording");
}

/* Rows `?', reported twice: of a thread without a name, one that has ended, one that ran several.
 */
static void explain_all(void)
{
    struct row *rows = NULL;

    make_host(SOFTWARE, 1);
    for (int i = 0; i < 6; i++) {
        add_thread(TID + i % 3, TID + i % 3, UNKNOWN_VCPU);
        struct thread *t = known_thread(TID + i % 3);
        t->guest->asked = true;
        t->known = i % 3 == 2 ? MIXED : UNTOLD;
        t->pending.counts[EXITS] = 1;
        move_tally(&t->pending, &unknown_vcpu(t, i % 3 == 1)->tally);
    }
    for (int i = 0; i < 2; i++) {
        size_t n = list_rows(&rows, has_row);
        explain_rows(rows, n);
    }
    free(rows);
}

static void test_explain(void)
{
    char said[4096];

    run_child(explain_all, said, sizeof(said));
    is_text(said,
        "kvmstat: process 5000000: row ?: a thread does not tell its vCPU (name it as QEMU's -name "
        "NAME,debug-threads=on does, or let kvmstat have debugfs)\n"
        "kvmstat: process 5000001: row ?: a thread ended before its vCPU was known (a newer kernel "
        "may tell it)\n"
        "kvmstat: process 5000002: row ?: a thread ran several vCPUs (run each in a thread of its "
        "own)\n",
        "why there are rows ?, once of each guest");
}

/* A CPU whose last event was of a thread that is forgotten since. */
static void forget_last_thread(void)
{
    struct sent before = vmx_exit(TID, 0, 12), after = vmx_exit(TID + 1, 1, 12);

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put(0, 1, &before);
    read_until(UINT64_MAX);
    find_all_vcpus();
    world.guests[0]->gone = 1;
    end_interval();
    if (world.nguests != 1 || world.nthreads != 1)
        exit(2); /* more of its events may come */
    end_interval();
    if (world.nguests != 0 || world.nthreads != 0)
        exit(3);
    put(0, 2, &after);
    read_until(UINT64_MAX);
    if (counts_of(TID + 1, 1)[HALTX] != 1)
        exit(4);
}

static void test_forget(void)
{
    char said[4096];
    int status = run_child(forget_last_thread, said, sizeof(said));

    if (!ok(status == 0 && said[0] == '\0',
            "a CPU's next event counts though its last thread is gone"))
        note("status %d, stderr: %.300s", status, said);
}

/* Makes a guest with a thread, which ran its vCPU 3 and is to be recorded. */
static struct thread *make_saved(void)
{
    static struct thread t;

    clear();
    t = (struct thread){.tid = TID, .known = TOLD, .vcpu = add_vcpu(7, 3), .ran = true};
    t.guest = guest_of(7, 0);
    output.name = "web.dat";
    return &t;
}

/* Saves as many threads as a recording tells of one guest, each twice, and two more. */
static void save_too_many(void)
{
    struct thread *t = make_saved();

    for (unsigned i = 0; i < 2 * MAX_ENTRIES + 2; i++) {
        t->tid = (int)(i < 2 * MAX_ENTRIES ? i / 2 + 1 : i);
        save_thread(t);
    }
    exit(unify_entries(&t->guest->ended_threads) == MAX_ENTRIES ? 0 : 1);
}

static void test_entries(void)
{
    struct thread *t = make_saved();
    char said[4096];

    for (int i = 0; i < 5; i++) {
        t->tid = TID + i % 2;
        save_thread(t);
    }
    ok(unify_entries(&t->guest->ended_threads) == 2, "a thread that ran a vCPU is recorded once");
    output.name = NULL;
    clear();
    int status = run_child(save_too_many, said, sizeof(said));
    ok(status == 0, "as many threads as -r can take are recorded");
    is_text(said,
        "kvmstat: web.dat: process 7: too many threads: the recording does not tell which vCPUs "
        "they ran (record for a shorter time, or with -p)\n",
        "and that there were more is said, once");
}

/* Saves guest 7 of what was set up, and reads its option as -r does. */
static void round_trip(void)
{
    struct text t = {.s = NULL};
    FILE *f = tmpfile();

    output.name = "web.dat";
    put_guests(&t);
    output.name = NULL;
    if (f == NULL || fwrite(t.s, 1, t.size, f) != t.size || fflush(f) != 0)
        bail_out("tmpfile: %s", strerror(errno));
    clear();
    source = &recorded_host;
    input.fd = dup(fileno(f));
    input.header = fdopen(input.fd, "r");
    input.name = copy("web.dat");
    input.size = t.size;
    input.at = input.nowners = 0;
    input.next = 1;
    input.from = 100;
    input.until = 900;
    take_options((uint64_t[MAX_BUFFERS]){0});
    sort_owners();
    fclose(f);
    free(t.s);
}

/* What -w tells of a guest in a GUEST option, -r takes as it was. */
static void test_guest_option(void)
{
    struct thread *t = make_saved(); /* thread TID ran vCPU 3 */
    struct guest *g = t->guest;

    g->name = copy("web");
    g->asked = true;
    g->vcpus[0]->first = 200;
    g->vcpus[0]->last = 800;
    g->vcpus[0]->present = false;
    add_vcpu(7, 1)->tid = TID + 1; /* which is known, but had no event */
    vcpu_of(g, 1)->present = true;
    vcpu_of(g, 1)->first = 300;
    add_vcpu(7, UNKNOWN_VCPU);
    save_thread(t);
    t->tid = TID + 2;
    t->vcpu = NULL;
    save_thread(t);
    round_trip();
    g = known_guest(7);
    ok(g != NULL && strcmp(g->name, "web") == 0, "its process and its name");
    ok(g->nvcpus == 4 && g->vcpus[0]->id == 0 && g->vcpus[3]->id == 3,
        "its vCPUs, with those of missing numbers below the highest one");
    ok(g->vcpus[3]->first == 200 && g->vcpus[3]->last == 800, "when a vCPU was there");
    ok(g->vcpus[1]->first == 300 && g->vcpus[1]->last == UINT64_MAX, "that one still is");
    ok(g->vcpus[0]->first == UINT64_MAX, "and that one never was");
    ok(owner_of(TID)->vcpu == g->vcpus[3] && !owner_of(TID)->mixed, "the thread of a vCPU");
    ok(owner_of(TID + 1)->vcpu == g->vcpus[1], "that of one that did nothing");
    ok(owner_of(TID + 2)->guest == g && owner_of(TID + 2)->mixed, "and one that nothing tells of");
    ok(owner_of(0) == NULL, "and no other");
}

static const struct test threads_tests[] = {
    {"processes", test_processes},
    {"ending", test_ending},
    {"used_again", test_used_again},
    {"used_again_software", test_used_again_software},
    {"replaced", test_replaced},
    {"ignored", test_ignored},
    {"threads", test_threads},
    {"find_vcpu", test_find_vcpu},
    {"named_vcpu", test_named_vcpu},
    {"timer_map", test_timer_map},
    {"maker", test_maker},
    {"moved", test_moved},
    {"explain", test_explain},
    {"forget", test_forget},
    {"entries", test_entries},
    {"guest_option", test_guest_option},
};
