/* usual.c - a thread that usually comes alone to a handle gets there by a shorter way, once it has
 * come often enough. Everything must be as it is on the long one. */
#include "eshm.h"
#include "check.h"

typedef struct pair {
    ESHMHandle *master, *slave;
} pair;

static ESHMHandle *open_as(const char *name, enum ESHMRole role)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = role;
    ESHMHandle *handle = eshm_init(&config);
    CHECK(handle != NULL);
    return handle;
}

/** Often enough that this thread is the usual one at both ends. */
static void come_often(pair both)
{
    char buffer[8];
    for (int call = 0; call < 100; call++) {
        EQUAL(eshm_write(both.master, "m", 1), ESHM_SUCCESS);
        EQUAL(eshm_write(both.slave, "s", 1), ESHM_SUCCESS);
        EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 1);
        EQUAL(buffer[0], 'm');
        EQUAL(eshm_read_ex(both.master, buffer, sizeof buffer, NULL, 0), ESHM_SUCCESS);
        EQUAL(buffer[0], 's');
    }
}

static pair open_both(const char *name)
{
    pair both;
    both.master = open_as(name, ESHM_ROLE_MASTER);
    both.slave = open_as(name, ESHM_ROLE_SLAVE);
    come_often(both);
    return both;
}

static void close_both(pair both)
{
    EQUAL(eshm_destroy(both.slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(both.master), ESHM_SUCCESS);
}

static void every_length(void)
{
    pair both = open_both(bus_name("lengths"));
    unsigned char message[300], got[300];
    size_t size, length;
    for (length = 0; length <= sizeof message; length++) {
        for (int again = 0; again < 3; again++) {
            for (size_t at = 0; at < length; at++) {
                message[at] = (unsigned char)(length + at * 7 + (size_t)again);
            }
            memset(got, 0xee, sizeof got);
            EQUAL(eshm_write(both.master, message, length), ESHM_SUCCESS);
            EQUAL(eshm_read_ex(both.slave, got, sizeof got, &size, 0), ESHM_SUCCESS);
            EQUAL(size, length);
            CHECK(memcmp(got, message, length) == 0);
            for (size_t at = length; at < sizeof got; at++) {
                EQUAL(got[at], 0xee);
            }
        }
    }
    close_both(both);
}

/* Short and long ones in turn: what long ones leave behind in the ring is no message. */
static void short_between_long(void)
{
    pair both = open_both(bus_name("between"));
    uint64_t message[32], got[32];
    for (uint64_t number = 0; number < 30000; number++) {
        size_t words = number % 3 ? 1 + number % 6 : 7 + number % 26;
        for (size_t at = 0; at < words; at++) {
            /* What could be taken for the word that commits a frame. */
            message[at] = number * 3 + at;
        }
        message[0] = number;
        EQUAL(eshm_write(both.master, message, words * 8), ESHM_SUCCESS);
        EQUAL(eshm_read(both.slave, got, sizeof got), words * 8);
        CHECK(memcmp(got, message, words * 8) == 0);
        EQUAL(eshm_read_ex(both.slave, got, sizeof got, NULL, 0), ESHM_ERROR_NO_DATA);
    }
    close_both(both);
}

/* What is refused, is so without a trace: the next call goes on. */
static void refusals(void)
{
    pair both = open_both(bus_name("refusals"));
    char buffer[64];
    static char much[5000];
    size_t size = 99;
    EQUAL(eshm_write(both.master, much, sizeof much), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(eshm_write(both.master, "after", 5), ESHM_SUCCESS);
    EQUAL(eshm_write(both.master, NULL, 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_write(both.master, NULL, 0), ESHM_SUCCESS);
    EQUAL(eshm_read(both.slave, NULL, 5), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read_ex(both.slave, buffer, 4, &size, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(size, 0);
    EQUAL(eshm_read_ex(both.slave, buffer, SIZE_MAX, &size, 0), ESHM_SUCCESS);
    EQUAL(size, 5);
    CHECK(memcmp(buffer, "after", 5) == 0);
    EQUAL(eshm_read(both.slave, NULL, 0), 0);
    EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, &size, 0), ESHM_ERROR_NO_DATA);
    EQUAL(size, 0);
    EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, &size, 3), ESHM_ERROR_TIMEOUT);
    come_often(both);
    close_both(both);
}

static void a_full_ring(void)
{
    pair both = open_both(bus_name("full"));
    int next = 0, got;
    for (int round = 0; round < 3; round++) {
        int first = next;
        while (eshm_write(both.master, &next, sizeof next) == ESHM_SUCCESS) {
            next++;
        }
        CHECK(next - first > 4000);
        EQUAL(eshm_last_error_code(), ESHM_ERROR_BUFFER_FULL);
        for (int number = first; number < next; number++) {
            EQUAL(eshm_read(both.slave, &got, sizeof got), sizeof got);
            EQUAL(got, number);
        }
        EQUAL(eshm_read_ex(both.slave, &got, sizeof got, NULL, 0), ESHM_ERROR_NO_DATA);
    }
    close_both(both);
}

/* A claim or a peek takes its half, from the usual thread as well. */
static void claims_and_peeks(void)
{
    pair both = open_both(bus_name("claims"));
    void *place;
    ESHMView view;
    char buffer[8];
    for (int round = 0; round < 50; round++) {
        EQUAL(eshm_claim(both.master, 4, &place, 0), ESHM_SUCCESS);
        EQUAL(eshm_write(both.master, "in", 2), ESHM_ERROR_BUFFER_FULL);
        memcpy(place, "both", 4);
        EQUAL(eshm_commit(both.master, 4), ESHM_SUCCESS);
        EQUAL(eshm_write(both.master, "next", 4), ESHM_SUCCESS);
        EQUAL(eshm_peek(both.slave, &view, NULL, 0), ESHM_SUCCESS);
        EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
        CHECK(memcmp(view.data, "both", 4) == 0);
        EQUAL(eshm_release(both.slave), ESHM_SUCCESS);
        EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 4);
        CHECK(memcmp(buffer, "next", 4) == 0);
    }
    close_both(both);
}

static void all_refuse(ESHMHandle *handle)
{
    char buffer[8];
    EQUAL(eshm_write(handle, "x", 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read(handle, buffer, sizeof buffer), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read_ex(handle, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_INVALID_PARAM);
}

static void handles_that_are_none(void)
{
    const char *name = bus_name("handles");
    pair both = open_both(name), again;
    ESHMOptions wish = eshm_default_options(name);
    ESHMTap *tap = eshm_tap_open(&wish, ESHM_MASTER_TO_SLAVE, false);
    char buffer[8];
    CHECK(tap != NULL);
    for (int call = 0; call < 100; call++) {
        EQUAL(eshm_tap_read(tap, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
    }
    uintptr_t master = (uintptr_t)both.master;
    all_refuse((ESHMHandle *)tap);
    all_refuse(NULL);
    for (int bit = 0; bit < 64; bit++) {
        ESHMHandle *other = (ESHMHandle *)(master ^ (uintptr_t)1 << bit);
        if (other != both.slave) {
            all_refuse(other);
        }
    }
    EQUAL(eshm_tap_read((ESHMTap *)both.slave, buffer, 8, NULL, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_tap_close(tap), ESHM_SUCCESS);
    come_often(both);
    close_both(both);
    all_refuse(both.master);
    all_refuse(both.slave);
    EQUAL(eshm_destroy(both.master), ESHM_ERROR_INVALID_PARAM);
    /* The places are used again. */
    again = open_both(name);
    all_refuse(both.master);
    all_refuse(both.slave);
    close_both(again);
}

/* One thread at more handles than it can be the usual one of at a time. */
static void many_in_turn(void)
{
    enum { PAIRS = 12 };
    pair pairs[PAIRS];
    char name[256];
    uint64_t got;
    for (int at = 0; at < PAIRS; at++) {
        snprintf(name, sizeof name, "%s.%d", bus_name("turns"), at);
        pairs[at] = open_both(name);
    }
    for (uint64_t round = 0; round < 2000; round++) {
        for (uint64_t at = 0; at < PAIRS; at++) {
            uint64_t sent = round * PAIRS + at;
            EQUAL(eshm_write(pairs[at].master, &sent, sizeof sent), ESHM_SUCCESS);
            EQUAL(eshm_write(pairs[PAIRS - 1 - at].slave, &sent, sizeof sent), ESHM_SUCCESS);
            EQUAL(eshm_read(pairs[at].slave, &got, sizeof got), sizeof got);
            EQUAL(got, sent);
            EQUAL(eshm_read(pairs[PAIRS - 1 - at].master, &got, sizeof got), sizeof got);
            EQUAL(got, sent);
        }
    }
    for (int at = 0; at < PAIRS; at++) {
        close_both(pairs[at]);
    }
}

/* Where every call has more to do, nothing of it is left out. */
static void without_threads(void)
{
    ESHMConfig config = eshm_default_config(bus_name("by-hand"));
    pair both;
    ESHMStats before, after;
    config.use_threads = false;
    config.role = ESHM_ROLE_MASTER;
    CHECK((both.master = eshm_init(&config)) != NULL);
    config.role = ESHM_ROLE_SLAVE;
    CHECK((both.slave = eshm_init(&config)) != NULL);
    come_often(both);
    EQUAL(eshm_get_stats(both.master, &before), ESHM_SUCCESS);
    come_often(both);
    EQUAL(eshm_get_stats(both.master, &after), ESHM_SUCCESS);
    CHECK(after.master_heartbeat - before.master_heartbeat >= 200);
    CHECK(after.slave_heartbeat - before.slave_heartbeat >= 200);
    close_both(both);
}

static void overwriting(void)
{
    ESHMOptions options = eshm_default_options(bus_name("newest"));
    pair both;
    int got = -1, number;
    options.role = ESHM_ROLE_MASTER;
    options.master_to_slave.frames = 64;
    options.master_to_slave.overflow = ESHM_OVERFLOW_OVERWRITE;
    CHECK((both.master = eshm_open(&options)) != NULL);
    options.role = ESHM_ROLE_SLAVE;
    CHECK((both.slave = eshm_open(&options)) != NULL);
    come_often(both);
    for (number = 0; number < 1000; number++) {
        EQUAL(eshm_write(both.master, &number, sizeof number), ESHM_SUCCESS);
    }
    int count = 0, last = -1;
    while (eshm_read_ex(both.slave, &got, sizeof got, NULL, 0) == ESHM_SUCCESS) {
        CHECK(got > last);
        last = got;
        count++;
    }
    EQUAL(last, 999);
    CHECK(count < 65);
    close_both(both);
}

static void *use_elsewhere(void *with)
{
    come_often(*(pair *)with);
    return NULL;
}

/* A thread ends, and others come: each becomes the usual one. */
static void one_thread_after_another(void)
{
    pair both = open_both(bus_name("threads"));
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        EQUAL(pthread_create(&thread, NULL, use_elsewhere, &both), 0);
        EQUAL(pthread_join(thread, NULL), 0);
        if (round % 3 == 0) {
            come_often(both);
        }
    }
    close_both(both);
}

static void be_child(void *with)
{
    pair *both = (pair *)with;
    char buffer[8];
    EQUAL(eshm_write(both->master, "x", 1), ESHM_ERROR_NOT_INITIALIZED);
    CHECK(strstr(eshm_last_error(), "fork") != NULL);
    EQUAL(eshm_read(both->slave, buffer, 8), ESHM_ERROR_NOT_INITIALIZED);
    CHECK(strstr(eshm_last_error(), "fork") != NULL);
    /* A bus of its own it has like anybody else. */
    close_both(open_both(bus_name("of-the-child")));
    EQUAL(eshm_write(both->master, "x", 1), ESHM_ERROR_NOT_INITIALIZED);
    all_refuse(NULL);
}

static void forked(void)
{
    pair both = open_both(bus_name("forked"));
    for (int round = 0; round < 5; round++) {
        joined(spawn(be_child, &both));
        come_often(both);
    }
    close_both(both);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"every_length", every_length},
        {"short_between_long", short_between_long},
        {"refusals", refusals},
        {"a_full_ring", a_full_ring},
        {"claims_and_peeks", claims_and_peeks},
        {"handles_that_are_none", handles_that_are_none},
        {"many_in_turn", many_in_turn},
        {"without_threads", without_threads},
        {"overwriting", overwriting},
        {"one_thread_after_another", one_thread_after_another},
        {"forked", forked},
    };
    return RUN(tests, argc, argv);
}
