/*
 * numbers - numbers that are read, and times that are put out
 *
 * A part of unit.c, which includes it.
 */

static void test_numbers(void)
{
    static const struct {
        const char *s;  /* the text */
        uint64_t max;   /* the limit */
        bool good;      /* it is a number up to that */
        uint64_t value; /* which */
        size_t size;    /* of how many digits */
    } numbers[] = {{"0", 100, true, 0, 1}, {"99", 100, true, 99, 2}, {"100", 100, true, 100, 3},
        {"101", 100, false, 0, 0}, {"1000", 100, false, 0, 0}, {"007x", 100, true, 7, 3},
        {"1.5", 100, true, 1, 1}, {"", 100, false, 0, 0}, {"x", 100, false, 0, 0},
        {"-1", 100, false, 0, 0}, {"+1", 100, false, 0, 0}, {" 1", 100, false, 0, 0},
        {"4294967295", UINT32_MAX, true, UINT32_MAX, 10}, {"4294967296", UINT32_MAX, false, 0, 0},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX, 20},
        {"18446744073709551616", UINT64_MAX, false, 0, 0},
        {"99999999999999999999999", UINT64_MAX, false, 0, 0}};
    static const struct {
        const char *s; /* the text */
        int value;     /* parse_int()'s */
    } ints[] = {{"0", 0}, {"42", 42}, {"2147483647", INT_MAX}, {"2147483648", -1},
        {"4294967297", -1}, {"", -1}, {"-1", -1}, {"+1", -1}, {" 1", -1}, {"1 ", -1}, {"1x", -1},
        {"0x1", -1}, {"1.0", -1}};
    char buf[21];
    bool right = true;

    for (size_t i = 0; i < SIZE(numbers); i++) {
        const char *s = numbers[i].s;
        uint64_t value;
        bool good = parse_digits(&s, numbers[i].max, &value);
        right &= good == numbers[i].good && s == numbers[i].s + numbers[i].size &&
                 (!good || value == numbers[i].value);
    }
    ok(right, "digits are a number up to the limit, or none");
    right = true;
    for (size_t i = 0; i < SIZE(ints); i++)
        right &= parse_int(ints[i].s) == ints[i].value;
    ok(right, "an int is all digits, up to 2147483647");
    ok(strcmp(digits(0, buf), "0") == 0 && strcmp(digits(1234567890, buf), "1234567890") == 0 &&
            strcmp(digits(UINT64_MAX, buf), "18446744073709551615") == 0,
        "numbers are put out in full");
}

/* Tests the stamp that -T stamp gives at a time in ms since 1970, in a time zone. */
static void is_stamp(char stamp, int decimals, const char *zone, uint64_t ms, const char *wanted)
{
    char got[64], name[128];
    uint64_t difference = now(CLOCK_REALTIME) - now(CLOCK_MONOTONIC);

    setenv("TZ", zone, 1);
    tzset();
    options.stamp = stamp;
    options.decimals = decimals;
    /* 5 ms more, so that the clocks' wobble does not reach the second decimal. */
    format_time((ms + 5) * (NSEC / 1000) - difference, got, sizeof(got));
    if (decimals > 2)
        memset(got + strcspn(got, ".") + 3, '#', (size_t)decimals - 2);
    snprintf(
        name, sizeof(name), "-T %c: %s, %d decimals", stamp == 0 ? '-' : stamp, wanted, decimals);
    is_text(got, wanted, name);
}

static void test_stamp(void)
{
    /* As POSIX writes them, so that no time zone files are needed. */
    static const char utc[] = "UTC0", kolkata[] = "IST-5:30";
    static const char st_johns[] = "NST3:30NDT,M3.2.0,M11.1.0";

    clear();
    is_stamp('u', 0, utc, 1700000000500, "1700000000");
    is_stamp('u', 1, utc, 1700000000500, "1700000000.5");
    is_stamp('u', 2, kolkata, 1700000000500, "1700000000.50");
    is_stamp('u', 9, utc, 4102444800500, "4102444800.50#######");
    is_stamp('u', 2, utc, 1700000000000, "1700000000.00");
    is_stamp('d', 0, utc, 1700000000500, "2023-11-14T22:13:20+00:00");
    is_stamp('d', 2, utc, 1700000000500, "2023-11-14T22:13:20.50+00:00");
    is_stamp('d', 9, utc, 4102444800500, "2100-01-01T00:00:00.50#######+00:00");
    is_stamp('d', 0, kolkata, 1700000000500, "2023-11-15T03:43:20+05:30");
    is_stamp('d', 1, kolkata, 1700000000500, "2023-11-15T03:43:20.5+05:30");
    is_stamp('d', 0, st_johns, 1700000000500, "2023-11-14T18:43:20-03:30");
    is_stamp('d', 2, st_johns, 1690000000500, "2023-07-22T01:56:40.50-02:30");
    is_stamp(0, 2, utc, 1700000000500, "");
}

/* The epochs of a recording during which the clock was set. */
static void test_epochs(void)
{
    struct text t = {.s = NULL};

    clear();
    ok(recorded_epoch_offset(1) == 0, "a recording that does not tell its date");
    note_epoch(10, 5000);
    note_epoch(20, 5000);
    note_epoch(30, 0x7000);
    note_epoch(40, 5000);
    put_date(&t);
    put_bytes(&t, "", 1);
    is_text(t.s + 6, "0x5 20 0x1c 30 0x5 40", "each time that the clock was set");
    input.nepochs = 0;
    note_epoch(10, 3000);
    take_date(t.s + 6);
    ok(recorded_epoch_offset(20) == 5000 && recorded_epoch_offset(21) == 28000 &&
            recorded_epoch_offset(30) == 28000 && recorded_epoch_offset(31) == 5000,
        "is read again");
    take_date("0x9");
    ok(recorded_epoch_offset(0) == 9000 && recorded_epoch_offset(UINT64_MAX) == 9000,
        "a date of trace-cmd");
    input.nepochs = 0;
    for (uint64_t i = 0; i < MAX_EPOCHS + 3; i++)
        note_epoch(i, i * 1000 + 1);
    ok(recorded_epoch_offset(MAX_EPOCHS - 3) != 0 && recorded_epoch_offset(MAX_EPOCHS + 1) == 0,
        "too many: no wrong date");
    free(t.s);
}

static const struct test numbers_tests[] = {
    {"epochs", test_epochs},
    {"numbers", test_numbers},
    {"stamp", test_stamp},
};
