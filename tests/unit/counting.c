/*
 * counting - counts in the order of the stamps, whatever CPU an event comes from
 *
 * A part of unit.c, which includes it.
 */

/* What the letters of a scenario mean. */
static const struct {
    char letter;      /* in the scenario */
    enum event event; /* what it is */
    uint64_t reason;  /* VMX's exit_reason, or KVM_EXIT's number */
    uint64_t error;   /* kvm_userspace_exit's errno */
} letters[] = {
    {'p', KVM_EXIT, 48, 0}, /* EPT violation: a page fault */
    {'s', KVM_EXIT, 0, 0},  /* exception: a page fault with shadow paging */
    {'h', KVM_EXIT, 12, 0}, /* HLT */
    {'c', KVM_EXIT, 49, 0}, /* EPT misconfiguration: MMIO that KVM knows already */
    {'m', KVM_MMIO, 0, 0}, {'e', KVM_EMULATE_INSN, 0, 0}, {'q', KVM_INJ_VIRQ, 0, 0},
    {'I', KVM_USERSPACE_EXIT, 2, 0},             /* port I/O */
    {'H', KVM_USERSPACE_EXIT, 5, 0},             /* HLT */
    {'M', KVM_USERSPACE_EXIT, 6, 0},             /* MMIO */
    {'W', KVM_USERSPACE_EXIT, 7, 0},             /* interrupt window */
    {'S', KVM_USERSPACE_EXIT, 10, (uint64_t)-4}, /* a signal: EINTR */
    {'F', KVM_USERSPACE_EXIT, 6, (uint64_t)-14}, /* an error: EFAULT, whatever the reason says */
};

/* Events of one thread, and what the reports of them show in sum. */
struct scenario {
    const char *promise;        /* the test's name */
    const char *steps;          /* each a CPU and a letter, or a CPU and L: it loses events; | is a
                                   report, and _ time enough to be sure that no kvm_mmio follows */
    uint64_t wanted[NCOUNTERS]; /* the sums, those of exits first */
};

/* Adds what a report at end would show for vCPU 0 to sums, and starts the next interval. */
static void report_to(uint64_t sums[NCOUNTERS], uint64_t end)
{
    struct line line;
    struct guest *g = guest_of(TID, 0);

    g->gone = 0;
    read_until(UINT64_MAX);
    settle_exits(end);
    find_all_vcpus();
    set_line(&line, "", &(struct row){.guest = g, .vcpu = vcpu_of(g, 0)}, NULL, NULL);
    for (int i = 0; i < NCOUNTERS; i++)
        sums[i] += (uint64_t)strtoull(line.cells[FIRST_COUNT + i], NULL, 10);
    end_interval();
}

/* Writes the event that letter stands for. */
static void put_letter(int cpu, uint64_t time, char letter)
{
    size_t i = 0;

    while (letters[i].letter != letter)
        i++;
    put(cpu, time,
        &(struct sent){letters[i].event, TID,
            {[EXIT_REASON] = letters[i].reason,
                [ISA] = 1,
                [REASON] = letters[i].reason,
                [ERRNO] = letters[i].error}});
}

/* Tests the scenario on such a host, with its CPUs numbered upwards or downwards. */
static void run_scenario(const struct scenario *scenario, enum host host, bool downwards)
{
    enum { CPUS = 3 };
    uint64_t sums[NCOUNTERS] = {0};
    uint64_t time = 1;
    char name[256];

    make_host(host, CPUS);
    add_thread(TID, TID, host == SOFTWARE ? 0 : UNKNOWN_VCPU);
    for (const char *s = scenario->steps; *s != '\0'; s++) {
        if (*s == '|')
            report_to(sums, time);
        if (*s == '_')
            time += DOUBT;
        if (*s < '0' || *s >= '0' + CPUS)
            continue;
        int cpu = downwards ? CPUS - 1 - (*s - '0') : *s - '0';
        if (*++s == 'L')
            lose(cpu, 7);
        else
            put_letter(cpu, time++, *s);
    }
    report_to(sums, UINT64_MAX);
    snprintf(name, sizeof(name), "%s (%s%s)", scenario->promise, scenario->steps,
        downwards ? ", the CPUs the other way round" : "");
    is_counts(sums, scenario->wanted, name);
}

/* When an exit moves to mmiox. */
static void test_mmio(void)
{
    static const struct scenario scenarios[] = {
        {"a page fault is no MMIO", "0p", {1, [EPTV] = 1}},
        {"kvm_mmio makes MMIO of the page fault before it", "0p 0m", {1, [MMIOX] = 1}},
        {"also if the thread went to another CPU", "0p 1m", {1, [MMIOX] = 1}},
        {"also if it went to and fro", "0p 1e 2e 1m 0p 2p",
            {3, [MMIOX] = 1, [EMUL] = 2, [EPTV] = 2}},
        {"an exit moves once", "0p 0m 0m 1m 0m", {1, [MMIOX] = 1}},
        {"only the last exit moves", "0p 0p 1m 0m", {2, [MMIOX] = 1, [EPTV] = 1}},
        {"an exit without a column moves, too", "0s 0m", {1, [MMIOX] = 1}},
        {"an exit without a column moves once", "0s 1m 0m", {1, [MMIOX] = 1}},
        {"an exit with another column does not", "0h 0m", {1, [HALTX] = 1}},
        {"nor does one before that", "0p 0h 0m", {2, [HALTX] = 1, [EPTV] = 1}},
        {"MMIO that KVM knows already counts once", "0c 0m 0m", {1, [MMIOX] = 1}},
        {"kvm_mmio without an exit counts nothing", "0m 1m", {0}},
        {"events lost in between: the exit does not move", "0p 0L 0m", {1, [EPTV] = 1}},
        {"lost where kvm_mmio was read", "0p 1L 1m", {1, [EPTV] = 1}},
        {"lost where kvm_mmio was read, an event before", "0p 1L 1e 1m",
            {1, [EMUL] = 1, [EPTV] = 1}},
        {"lost where the exit was read", "0p 0L 0e 1m", {1, [EMUL] = 1, [EPTV] = 1}},
        {"lost where the exit was read, another one before", "0p 1p 1L 1e 2m",
            {2, [EMUL] = 1, [EPTV] = 2}},
        {"an exit without a column does not move then, either", "0s 0L 0m", {1}},
        {"lost on a third CPU: the exit moves", "0p 2L 2e 1m", {1, [MMIOX] = 1, [EMUL] = 1}},
        {"lost before the exit: it moves", "0L 0p 0m", {1, [MMIOX] = 1}},
        {"lost before the exit, on two CPUs: it moves", "0L 1L 0e 1p 0m",
            {1, [MMIOX] = 1, [EMUL] = 1}},
        {"lost after kvm_mmio: the exit has moved", "0p 0m 0L 0p", {2, [MMIOX] = 1, [EPTV] = 1}},
        {"an exit waits for its kvm_mmio, also for the next report", "0p | 0m", {1, [MMIOX] = 1}},
        {"and the one after", "0p | | 1m 0p", {2, [MMIOX] = 1, [EPTV] = 1}},
        {"not beyond the next exit", "0p | 0h 0m", {2, [HALTX] = 1, [EPTV] = 1}},
        {"and not for ever", "0p _ | 0m", {1, [EPTV] = 1}},
        {"an exit without a column moves out of a report, too", "0s | 0m", {1, [MMIOX] = 1}},
        {"all events count in the report after they came", "0h | 0h 0q | 0e 0e",
            {2, [HALTX] = 2, [IRQS] = 1, [EMUL] = 2}},
    };

    for (size_t i = 0; i < SIZE(scenarios); i++) {
        run_scenario(&scenarios[i], HARDWARE, false);
        run_scenario(&scenarios[i], HARDWARE, true);
    }
}

/* When an exit that kvm_mmio may follow is reported. */
static void test_doubt(void)
{
    uint64_t sums[NCOUNTERS] = {0};

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put_letter(0, 1, 'p');
    report_to(sums, DOUBT);
    ok(sums[EXITS] == 1 && sums[EPTV] == 0, "it is an exit at once, and no eptv yet");
    report_to(sums, DOUBT + 1);
    ok(sums[EXITS] == 1 && sums[EPTV] == 1, "a second later it is an eptv");
    put_letter(0, DOUBT + 2, 'p');
    read_until(UINT64_MAX);
    guest_of(TID, 0)->gone = 1;
    settle_exits(DOUBT + 3);
    ok(counts_of(TID, 0)[EPTV] == 1, "or at once, when the guest is gone");
}

/* Exits where there is no kvm_exit. */
static void test_user_exits(void)
{
    static const struct scenario scenarios[] = {
        {"user space: port I/O", "0I 0I", {2, [IOX] = 2}},
        {"user space: HLT", "0H 0H", {2, [HALTX] = 2}},
        {"user space: interrupt window", "0W 0W", {2, [IRQWX] = 2}},
        {"user space: MMIO", "0e 0M", {1, [MMIOX] = 1, [EMUL] = 1}},
        {"MMIO again, with no instruction between, is the same exit", "0M 0M 1M", {1, [MMIOX] = 1}},
        {"MMIO of another instruction is another exit", "0M 0e 1M", {2, [MMIOX] = 2, [EMUL] = 1}},
        {"port I/O that goes on after MMIO is the same exit", "0M 0I", {1, [MMIOX] = 1}},
        {"the port I/O after that is another one", "0M 0I 0I", {2, [IOX] = 1, [MMIOX] = 1}},
        {"MMIO after port I/O is another exit", "0I 0M", {2, [IOX] = 1, [MMIOX] = 1}},
        {"HLT after MMIO is another exit", "0M 0H", {2, [HALTX] = 1, [MMIOX] = 1}},
        {"and MMIO after that, too", "0M 0H 0M", {3, [HALTX] = 1, [MMIOX] = 2}},
        {"an injection: the guest was entered", "0M 0q 0M", {2, [MMIOX] = 2, [IRQS] = 1}},
        {"an error is no exit", "0F 0S", {0}},
        {"MMIO goes on after a signal", "0M 0S 0M 0F 0M", {1, [MMIOX] = 1}},
        {"MMIO goes on in the next report", "0M | 0M | 0e 0M", {2, [MMIOX] = 2, [EMUL] = 1}},
    };

    for (size_t i = 0; i < SIZE(scenarios); i++) {
        run_scenario(&scenarios[i], SOFTWARE, false);
        run_scenario(&scenarios[i], SOFTWARE, true);
    }
}

/* One thread runs vCPUs in turn, its events spread over all CPUs by chance. */
static void test_order(void)
{
    enum { VCPUS = 5, ENTRIES = 20000 };
    uint64_t wanted[VCPUS] = {0};
    uint64_t time = 1000;
    bool same = true;

    make_host(BEFORE_5_10, MAX_CPUS);
    add_thread(TID, TID, UNKNOWN_VCPU);
    for (int i = 0; i < ENTRIES; i++) {
        uint64_t vcpu = chance() % VCPUS;
        struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = vcpu}};
        struct sent leaving = vmx_exit(TID, 0, 12);
        put((int)(chance() % MAX_CPUS), time, &entry);
        /* Now and then longer than an event's delta reaches. */
        time += chance() % 64 == 0 ? chance() % (1u << 29) : 1 + chance() % 1000;
        put((int)(chance() % MAX_CPUS), time, &leaving);
        time += 1 + chance() % 1000;
        wanted[vcpu]++;
        if (chance() % 1000 == 0)
            read_until(chance() % 2 == 0 ? time : time - chance() % 2000);
    }
    read_until(time);
    for (int i = 0; i < VCPUS; i++)
        same &= counts_of(TID, i)[HALTX] == wanted[i] && counts_of(TID, i)[EXITS] == wanted[i];
    ok(same, "%d exits spread over %d CPUs count for the vCPU that was entered before each",
        ENTRIES, MAX_CPUS);
}

/* drain() stops at its time. */
static void test_until(void)
{
    struct sent leaving = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 2);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put(0, 100, &leaving);
    put(0, 200, &leaving);
    put(1, 199, &leaving);
    put(1, 300, &leaving);
    read_until(100);
    ok(counts_of(TID, 0)[EXITS] == 0, "an event counts after its time only");
    drain_buffers(200);
    ok(counts_of(TID, 0)[EXITS] == 2, "events count that are stamped before the end");
    drain_buffers(201);
    ok(counts_of(TID, 0)[EXITS] == 3, "an event stamped at the end counts the next time");
    drain_buffers(UINT64_MAX);
    ok(counts_of(TID, 0)[EXITS] == 4, "all events count once");
    put(0, 400, &leaving);
    put(1, 400, &leaving);
    end_page(0);
    end_page(1);
    int fd = reading.streams[0].fd;
    reading.streams[0].fd = -1; /* poll() says nothing of it */
    drain_buffers(UINT64_MAX);
    ok(counts_of(TID, 0)[EXITS] == 5, "a CPU is read if poll() says that it has events");
    reading.streams[0].fd = fd;
    drain_buffers(UINT64_MAX);
    ok(counts_of(TID, 0)[EXITS] == 6, "and else the next time");
}

/* The same with no other CPU that has events. */
static void test_until_alone(void)
{
    struct sent leaving = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    for (uint64_t time = 100; time < 200; time++)
        put(0, time, &leaving);
    read_until(150);
    ok(counts_of(TID, 0)[EXITS] == 50, "one CPU's events count up to the end only");
    drain_buffers(200);
    ok(counts_of(TID, 0)[EXITS] == 100, "and the others the next time");
}

/* What a CPU lost, by the kernel's counter. */
static void test_lost(void)
{
    struct sent leaving = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 2);
    add_thread(TID, TID, UNKNOWN_VCPU);
    for (uint64_t time = 1; time <= 4; time++) {
        put(1, time, &leaving);
        lose(1, 1000 * time);
    }
    put(1, 5, &leaving);
    read_until(UINT64_MAX);
    ok(reading.streams[0].lost == 0 && reading.streams[1].lost == 10000,
        "the events that a CPU lost count once each");
    ok(counts_of(TID, 0)[EXITS] == 5, "those that it did not lose count");
}

static const struct test counting_tests[] = {
    {"mmio", test_mmio},
    {"doubt", test_doubt},
    {"user_exits", test_user_exits},
    {"order", test_order},
    {"until", test_until},
    {"until_alone", test_until_alone},
    {"lost", test_lost},
};
