/* more.c - what came after ESHM 1.0. */
#include "eshm.h"
#include "check.h"

typedef struct pair {
    ESHMHandle *master, *slave;
} pair;

static ESHMHandle *open_with(ESHMOptions options, enum ESHMRole role)
{
    options.role = role;
    ESHMHandle *handle = eshm_open(&options);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
    }
    CHECK(handle != NULL);
    return handle;
}

static pair open_both(ESHMOptions options)
{
    pair both;
    both.master = open_with(options, ESHM_ROLE_MASTER);
    both.slave = open_with(options, ESHM_ROLE_SLAVE);
    return both;
}

static pair open_named(const char *name)
{
    return open_both(eshm_default_options(name));
}

static void close_both(pair both)
{
    EQUAL(eshm_destroy(both.slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(both.master), ESHM_SUCCESS);
}

static void version(void)
{
    EQUAL(eshm_version(),
          ESHM_VERSION_MAJOR * 10000 + ESHM_VERSION_MINOR * 100 + ESHM_VERSION_PATCH);
}

static void options(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("options"));
    wish.master_to_slave.frames = 1024;
    wish.master_to_slave.frame_size = 256;
    wish.slave_to_master.frames = 64;
    wish.heartbeat_interval_us = 2000;
    wish.wait = ESHM_WAIT_PARK;
    wish.prefault = true;
    wish.mode = 0660;
    pair both = open_both(wish);
    ESHMGeometry shape;
    EQUAL(eshm_get_geometry(both.slave, ESHM_MASTER_TO_SLAVE, &shape), ESHM_SUCCESS);
    EQUAL(shape.frames, 1024);
    EQUAL(shape.frame_size, 256);
    EQUAL(shape.overflow, ESHM_OVERFLOW_REFUSE);
    EQUAL(eshm_get_geometry(both.slave, ESHM_SLAVE_TO_MASTER, &shape), ESHM_SUCCESS);
    EQUAL(shape.frames, 64);
    EQUAL(shape.frame_size, 64);
    EQUAL(eshm_get_geometry(both.slave, (enum ESHMDirection)2, &shape), ESHM_ERROR_INVALID_PARAM);
    struct stat facts;
    EQUAL(stat(bus_file(wish.name), &facts), 0);
    EQUAL(facts.st_mode & 0777, 0660);
    size_t most = 0;
    EQUAL(eshm_max_message(both.master, &most), ESHM_SUCCESS);
    CHECK(most > 4096);
    close_both(both);
}

static void options_that_cannot_be(void)
{
    const char *name = bus_name("wrong");
    ESHMOptions wish = eshm_default_options(name);
    CHECK(eshm_open(NULL) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
    wish.struct_size = 0;
    CHECK(eshm_open(&wish) == NULL);
    CHECK(strstr(eshm_last_error(), "struct_size") != NULL);
    wish = eshm_default_options(NULL);
    CHECK(eshm_open(&wish) == NULL);
    wish = eshm_default_options(name);
    wish.takeover = (enum ESHMTakeover)9;
    CHECK(eshm_open(&wish) == NULL);
    CHECK(strstr(eshm_last_error(), "takeover") != NULL);
    wish = eshm_default_options(name);
    wish.reserved[1] = 1;
    CHECK(eshm_open(&wish) == NULL);
    wish = eshm_default_options(name);
    wish.master_to_slave.frames = 100;
    CHECK(eshm_open(&wish) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
    wish = eshm_default_options(name);
    wish.role = ESHM_ROLE_SLAVE;
    wish.open_timeout_ms = 0;
    CHECK(eshm_open(&wish) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    CHECK(strstr(eshm_last_error(), name) != NULL);
    wish.trusted_count = 1;
    CHECK(eshm_open(&wish) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
    CHECK(strstr(eshm_last_error(), "trusted_users") != NULL);
    /* A program compiled when the struct was shorter: what it does not know has its default. */
    wish = eshm_default_options(name);
    wish.struct_size = offsetof(ESHMOptions, heartbeat_interval_us);
    wish.use_threads = false;
    wish.mode = 0666;
    ESHMHandle *master = eshm_open(&wish);
    CHECK(master != NULL);
    struct stat facts;
    EQUAL(stat(bus_file(name), &facts), 0);
    EQUAL(facts.st_mode & 0777, 0600);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

static void wishes_are_wishes(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("wishes"));
    wish.role = ESHM_ROLE_MASTER;
    wish.prefault = wish.lock_memory = wish.huge_pages = true;
    ESHMHandle *master = eshm_open(&wish);
    CHECK(master != NULL);
    const uint32_t all = ESHM_WISH_PREFAULT | ESHM_WISH_LOCK_MEMORY | ESHM_WISH_HUGE_PAGES;
    EQUAL(eshm_refused_wishes(master) & ~all, 0);
    EQUAL(eshm_write(master, "x", 1), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    EQUAL(eshm_refused_wishes(NULL), 0);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
}

static void roles_are_left_alone(void)
{
    pair both = open_named(bus_name("taken"));
    ESHMOptions wish = eshm_default_options(bus_name("taken"));
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    for (int role = ESHM_ROLE_MASTER; role <= ESHM_ROLE_AUTO; role++) {
        wish.role = (enum ESHMRole)role;
        CHECK(eshm_open(&wish) == NULL);
        EQUAL(eshm_last_error_code(), ESHM_ERROR_ROLE_MISMATCH);
        CHECK(strstr(eshm_last_error(), pid) != NULL);
    }
    wish.role = ESHM_ROLE_SLAVE;
    wish.takeover = ESHM_TAKEOVER_ALWAYS;
    ESHMHandle *slave = eshm_open(&wish);
    CHECK(slave != NULL);
    EQUAL(eshm_write(both.slave, "x", 1), ESHM_ERROR_ROLE_MISMATCH);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    close_both(both);
}

static void timeouts_and_ids(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("ids"));
    wish.master_to_slave.frames = 64;
    pair both = open_both(wish);
    ESHMMessageId id = {99, 99};
    ESHMMessage message;
    char buffer[64];
    size_t size = 0;
    message.struct_size = sizeof message;
    EQUAL(eshm_last_committed(both.master, &id), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_last_read(both.slave, &id), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_next_size(both.slave, &size), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_write_ex(both.master, "zero", 4, &id, 0), ESHM_SUCCESS);
    EQUAL(id.epoch, 1);
    EQUAL(id.number, 0);
    EQUAL(eshm_write_ex(both.master, "one", 3, &id, 100), ESHM_SUCCESS);
    EQUAL(id.number, 1);
    EQUAL(eshm_last_committed(both.master, &id), ESHM_SUCCESS);
    EQUAL(id.number, 1);
    EQUAL(eshm_next_size(both.slave, &size), ESHM_SUCCESS);
    EQUAL(size, 4);
    EQUAL(eshm_read_message(both.slave, buffer, 3, &message, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(message.size, 4);
    EQUAL(eshm_read_message(both.slave, buffer, sizeof buffer, &message, 0), ESHM_SUCCESS);
    EQUAL(message.size, 4);
    EQUAL(message.id.epoch, 1);
    EQUAL(message.id.number, 0);
    EQUAL(message.lost, 0);
    EQUAL(eshm_read_message(both.slave, buffer, sizeof buffer, NULL, 100), ESHM_SUCCESS);
    EQUAL(eshm_last_read(both.slave, &id), ESHM_SUCCESS);
    EQUAL(id.number, 1);
    EQUAL(eshm_read_message(both.slave, buffer, 8, &message, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_read_message(both.slave, buffer, 8, &message, 2), ESHM_ERROR_TIMEOUT);
    while (eshm_write(both.master, "fill", 4) == ESHM_SUCCESS) {
    }
    EQUAL(eshm_write_ex(both.master, "x", 1, NULL, 0), ESHM_ERROR_BUFFER_FULL);
    EQUAL(eshm_write_ex(both.master, "x", 1, NULL, 30), ESHM_ERROR_TIMEOUT);
    close_both(both);
}

static void long_messages(void)
{
    pair both = open_named(bus_name("long"));
    static char out[100000], in[100000];
    size_t most = 0;
    memset(out, 'l', sizeof out);
    EQUAL(eshm_max_message(both.master, &most), ESHM_SUCCESS);
    CHECK(most > sizeof out);
    EQUAL(eshm_write(both.master, out, sizeof out), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(eshm_write_ex(both.master, out, sizeof out, NULL, 0), ESHM_SUCCESS);
    EQUAL(eshm_read(both.slave, in, sizeof in), sizeof in);
    CHECK(memcmp(in, out, sizeof in) == 0);
    EQUAL(eshm_write_ex(both.master, out, SIZE_MAX, NULL, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_write_ex(both.master, out, most + 1, NULL, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
    close_both(both);
}

static void *read_one_later(void *with)
{
    char buffer[64];
    ESHMHandle *slave = (ESHMHandle *)with;
    ESHMStatsEx stats;
    stats.struct_size = sizeof stats;
    /* Not before the writer sleeps for room. */
    EVENTUALLY(eshm_get_stats_ex(slave, &stats) == ESHM_SUCCESS
               && stats.master_to_slave.writer_parks > 0);
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 4);
    while (eshm_read_ex(slave, buffer, sizeof buffer, NULL, 0) == ESHM_SUCCESS) {
    }
    return NULL;
}

static void writing_waits_for_room(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("room"));
    wish.master_to_slave.frames = 64;
    pair both = open_both(wish);
    pthread_t reader;
    while (eshm_write(both.master, "fill", 4) == ESHM_SUCCESS) {
    }
    EQUAL(pthread_create(&reader, NULL, read_one_later, both.slave), 0);
    EQUAL(eshm_write_ex(both.master, "room", 4, NULL, ESHM_WAIT_FOREVER), ESHM_SUCCESS);
    EQUAL(pthread_join(reader, NULL), 0);
    close_both(both);
}

static void many_at_once(void)
{
    pair both = open_named(bus_name("many"));
    enum { COUNT = 100 };
    static uint32_t numbers[COUNT];
    static unsigned char buffer[4096];
    ESHMView out[COUNT], in[COUNT];
    size_t count = 99;
    for (uint32_t at = 0; at < COUNT; at++) {
        numbers[at] = at;
        out[at].data = &numbers[at];
        out[at].size = at % 5; /* some empty, some short */
    }
    EQUAL(eshm_read_many(both.slave, buffer, sizeof buffer, in, COUNT, &count, 0),
          ESHM_ERROR_NO_DATA);
    EQUAL(count, 0);
    EQUAL(eshm_read_many(both.slave, buffer, sizeof buffer, in, COUNT, &count, 2),
          ESHM_ERROR_TIMEOUT);
    EQUAL(eshm_write_many(both.master, out, COUNT, &count), ESHM_SUCCESS);
    EQUAL(count, COUNT);
    EQUAL(eshm_write_many(both.master, NULL, 0, &count), ESHM_SUCCESS);
    EQUAL(count, 0);
    EQUAL(eshm_write_many(both.master, NULL, 1, &count), ESHM_ERROR_INVALID_PARAM);
    uint32_t next = 0;
    while (next < COUNT) {
        /* Room for some messages only, and for some bytes only. */
        EQUAL(eshm_read_many(both.slave, buffer, 20, in, 9, &count, 1000), ESHM_SUCCESS);
        CHECK(count > 0 && count <= 9);
        for (size_t at = 0; at < count; at++, next++) {
            EQUAL(in[at].size, next % 5);
            CHECK(memcmp(in[at].data, &numbers[next], in[at].size) == 0);
        }
    }
    while (eshm_write_many(both.master, out, COUNT, &count) == ESHM_SUCCESS) {
    }
    EQUAL(count, 0);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_BUFFER_FULL);
    close_both(both);
}

static void claims(void)
{
    pair both = open_named(bus_name("claims"));
    void *place = NULL;
    char buffer[64] = "";
    ESHMMessageId id;
    EQUAL(eshm_commit(both.master, 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_abort(both.master), ESHM_ERROR_INVALID_PARAM);
    for (int round = 0; round < 50; round++) {
        EQUAL(eshm_claim(both.master, 32, &place, 0), ESHM_SUCCESS);
        memcpy(place, "in place", 8);
        EQUAL(eshm_commit(both.master, 33), ESHM_ERROR_INVALID_PARAM);
        /* While a claim is open, there is no room for anything else. */
        EQUAL(eshm_write(both.master, "x", 1), ESHM_ERROR_BUFFER_FULL);
        EQUAL(eshm_write_ex(both.master, "x", 1, NULL, 1), ESHM_ERROR_TIMEOUT);
        EQUAL(eshm_claim(both.master, 8, &place, 0), ESHM_ERROR_BUFFER_FULL);
        CHECK(place == NULL);
        EQUAL(eshm_last_committed(both.master, &id), ESHM_ERROR_INVALID_PARAM);
        EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
        EQUAL(eshm_commit(both.master, 8), ESHM_SUCCESS);
        EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 8);
        CHECK(memcmp(buffer, "in place", 8) == 0);
        EQUAL(eshm_claim(both.master, 300, &place, 10), ESHM_SUCCESS);
        memset(place, 'x', 300);
        EQUAL(eshm_abort(both.master), ESHM_SUCCESS);
        EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
    }
    EQUAL(eshm_claim(both.master, (size_t)1 << 40, &place, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(eshm_claim(both.master, 8, NULL, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_claim(both.master, 8, &place, 0), ESHM_SUCCESS);
    close_both(both); /* with the claim open */
}

static void peeks(void)
{
    pair both = open_named(bus_name("peeks"));
    ESHMView view;
    ESHMMessage message;
    char buffer[64];
    size_t size;
    message.struct_size = sizeof message;
    EQUAL(eshm_release(both.slave), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_keep(both.slave), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_peek(both.slave, &view, NULL, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_peek(both.slave, &view, NULL, 2), ESHM_ERROR_TIMEOUT);
    CHECK(view.data == NULL);
    for (int round = 0; round < 50; round++) {
        EQUAL(eshm_write(both.master, "first", 5), ESHM_SUCCESS);
        EQUAL(eshm_write(both.master, "second", 6), ESHM_SUCCESS);
        EQUAL(eshm_peek(both.slave, &view, &message, 1000), ESHM_SUCCESS);
        EQUAL(view.size, 5);
        CHECK(memcmp(view.data, "first", 5) == 0);
        EQUAL(message.size, 5);
        EQUAL(message.id.number, 2 * round);
        /* While a peek is open, there is no message for anybody else. */
        EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, &size, 0), ESHM_ERROR_NO_DATA);
        EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, &size, 1), ESHM_ERROR_TIMEOUT);
        EQUAL(eshm_peek(both.slave, &view, NULL, 0), ESHM_ERROR_NO_DATA);
        EQUAL(eshm_keep(both.slave), ESHM_SUCCESS);
        EQUAL(eshm_peek(both.slave, &view, NULL, 0), ESHM_SUCCESS);
        CHECK(memcmp(view.data, "first", 5) == 0);
        EQUAL(eshm_release(both.slave), ESHM_SUCCESS);
        EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 6);
    }
    EQUAL(eshm_write(both.master, "last", 4), ESHM_SUCCESS);
    EQUAL(eshm_peek(both.slave, &view, NULL, 0), ESHM_SUCCESS);
    EQUAL(eshm_destroy(both.slave), ESHM_SUCCESS); /* with the peek open: the message stays */
    both.slave = open_with(eshm_default_options(bus_name("peeks")), ESHM_ROLE_SLAVE);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 4);
    close_both(both);
}

static void overwriting(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("overwrite"));
    wish.master_to_slave.frames = 64;
    wish.master_to_slave.overflow = ESHM_OVERFLOW_OVERWRITE;
    pair both = open_both(wish);
    ESHMMessage message;
    uint64_t number, lost = 0, total = 0;
    ESHMView view;
    message.struct_size = sizeof message;
    for (number = 0; number < 1000; number++) {
        EQUAL(eshm_write(both.master, &number, sizeof number), ESHM_SUCCESS);
    }
    for (uint64_t expected = 0; expected < 1000; expected++) {
        EQUAL(eshm_read_message(both.slave, &number, sizeof number, &message, 0), ESHM_SUCCESS);
        expected += message.lost;
        total += message.lost;
        EQUAL(number, expected);
        EQUAL(message.id.number, expected);
    }
    CHECK(total > 900);
    EQUAL(eshm_lost(both.slave, &lost), ESHM_SUCCESS);
    EQUAL(lost, total);
    for (number = 0; number < 500; number++) {
        EQUAL(eshm_write(both.master, &number, sizeof number), ESHM_SUCCESS);
    }
    EQUAL(eshm_peek(both.slave, &view, &message, 0), ESHM_SUCCESS);
    memcpy(&number, view.data, sizeof number);
    EQUAL(message.lost, number);
    EQUAL(eshm_release(both.slave), ESHM_SUCCESS);
    uint64_t skipped = 0;
    EQUAL(eshm_skip_to_latest(both.slave, &skipped), ESHM_SUCCESS);
    CHECK(skipped > 0);
    EQUAL(eshm_read(both.slave, &number, sizeof number), sizeof number);
    EQUAL(number, 499);
    EQUAL(eshm_skip_to_latest(both.slave, NULL), ESHM_SUCCESS);
    close_both(both);
}

static void peers_and_figures(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("figures"));
    ESHMPeer peer;
    ESHMStatsEx stats;
    char buffer[16];
    peer.struct_size = sizeof peer;
    stats.struct_size = sizeof stats;
    ESHMHandle *master = open_with(wish, ESHM_ROLE_MASTER);
    EQUAL(eshm_get_peer(master, &peer), ESHM_SUCCESS);
    EQUAL(peer.peer.state, ESHM_PEER_ABSENT);
    EQUAL(eshm_wait_for_peer(master, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_wait_for_peer(master, 3), ESHM_ERROR_TIMEOUT);
    ESHMHandle *slave = open_with(wish, ESHM_ROLE_SLAVE);
    EQUAL(eshm_wait_for_peer(master, 20000), ESHM_SUCCESS);
    EQUAL(eshm_get_peer(master, &peer), ESHM_SUCCESS);
    EQUAL(peer.peer.state, ESHM_PEER_ALIVE);
    EQUAL(peer.peer.pid, getpid());
    EQUAL(peer.peer.epoch, 1);
    EQUAL(eshm_write(master, "abc", 3), ESHM_SUCCESS);
    EQUAL(eshm_write(master, "defg", 4), ESHM_SUCCESS);
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 3);
    EQUAL(eshm_get_stats_ex(slave, &stats), ESHM_SUCCESS);
    EQUAL(stats.struct_size, sizeof stats);
    EQUAL(stats.master.state, ESHM_PEER_ALIVE);
    EQUAL(stats.master_to_slave.written, 2);
    EQUAL(stats.master_to_slave.read, 1);
    EQUAL(stats.master_to_slave.bytes, 7);
    EQUAL(stats.master_to_slave.backlog, 1);
    EQUAL(stats.master_to_slave.backlog_frames, 1);
    EQUAL(stats.master_to_slave.frames, 8192);
    EQUAL(stats.slave_to_master.written, 0);
    peer.struct_size = 3;
    EQUAL(eshm_get_peer(master, &peer), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_get_peer(master, NULL), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    peer.struct_size = sizeof peer;
    EVENTUALLY(eshm_get_peer(master, &peer) == ESHM_SUCCESS
               && peer.peer.state == ESHM_PEER_LEFT);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

static void *fail_elsewhere(void *with)
{
    EQUAL(eshm_last_error_code(), ESHM_SUCCESS);
    CHECK(eshm_last_error()[0] == '\0');
    EQUAL(eshm_destroy((ESHMHandle *)with), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
    return NULL;
}

static void last_errors_are_of_their_thread(void)
{
    pthread_t other;
    ESHMOptions wish = eshm_default_options(bus_name("nowhere"));
    wish.role = ESHM_ROLE_SLAVE;
    wish.open_timeout_ms = 0;
    CHECK(eshm_open(&wish) == NULL);
    EQUAL(pthread_create(&other, NULL, fail_elsewhere, NULL), 0);
    EQUAL(pthread_join(other, NULL), 0);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    CHECK(strstr(eshm_last_error(), "nowhere") != NULL);
}

static void taps(void)
{
    ESHMOptions wish = eshm_default_options(bus_name("taps"));
    pair both = open_both(wish);
    char buffer[16] = "";
    ESHMMessage message;
    message.struct_size = sizeof message;
    EQUAL(eshm_write(both.master, "early", 5), ESHM_SUCCESS);
    ESHMTap *all = eshm_tap_open(&wish, ESHM_MASTER_TO_SLAVE, true);
    ESHMTap *late = eshm_tap_open(&wish, ESHM_MASTER_TO_SLAVE, false);
    CHECK(all != NULL && late != NULL);
    EQUAL(eshm_write(both.master, "next", 4), ESHM_SUCCESS);
    EQUAL(eshm_tap_read(all, buffer, 2, &message, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(message.size, 5);
    EQUAL(eshm_tap_read(all, buffer, sizeof buffer, &message, 0), ESHM_SUCCESS);
    EQUAL(message.size, 5);
    EQUAL(message.id.number, 0);
    EQUAL(eshm_tap_read(all, buffer, sizeof buffer, NULL, 100), ESHM_SUCCESS);
    CHECK(memcmp(buffer, "next", 4) == 0);
    EQUAL(eshm_tap_read(late, buffer, sizeof buffer, &message, 1000), ESHM_SUCCESS);
    EQUAL(message.id.number, 1);
    EQUAL(eshm_tap_read(late, buffer, sizeof buffer, &message, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_tap_read(late, buffer, sizeof buffer, &message, 2), ESHM_ERROR_TIMEOUT);
    /* The reader has missed nothing, and a tap is no bus. */
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 5);
    EQUAL(eshm_write((ESHMHandle *)late, "x", 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_tap_read((ESHMTap *)both.master, buffer, 8, NULL, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_tap_close(all), ESHM_SUCCESS);
    EQUAL(eshm_tap_close(all), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_tap_close(late), ESHM_SUCCESS);
    EQUAL(eshm_tap_close(NULL), ESHM_ERROR_INVALID_PARAM);
    CHECK(eshm_tap_open(NULL, ESHM_MASTER_TO_SLAVE, true) == NULL);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 4);
    close_both(both);
    CHECK(eshm_tap_open(&wish, ESHM_MASTER_TO_SLAVE, true) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
}

static int find_entry(ESHMList *list, const char *name, ESHMEntry *entry)
{
    size_t index;
    for (index = 0; index < eshm_list_count(list); index++) {
        entry->struct_size = sizeof *entry;
        EQUAL(eshm_list_get(list, index, entry), ESHM_SUCCESS);
        if (strcmp(entry->name, name) == 0) {
            return 1;
        }
    }
    return 0;
}

static void lists_and_removal(void)
{
    const char *name = bus_name("listed");
    ESHMOptions wish = eshm_default_options(name);
    ESHMEntry entry;
    wish.auto_cleanup = false;
    pair both = open_both(wish);
    EQUAL(eshm_write(both.master, "x", 1), ESHM_SUCCESS);
    ESHMList *list = eshm_list_open(NULL);
    CHECK(list != NULL && eshm_list_count(list) > 0);
    CHECK(find_entry(list, name, &entry));
    EQUAL(entry.kind, ESHM_ENTRY_BUS);
    EQUAL(entry.state, ESHM_SEGMENT_LIVE);
    CHECK(strcmp(entry.path, bus_file(name)) == 0);
    EQUAL(entry.why[0], '\0');
    EQUAL(entry.mode, 0600);
    EQUAL(entry.uid, getuid());
    EQUAL(entry.master.state, ESHM_PEER_ALIVE);
    EQUAL(entry.master_to_slave.frames, 8192);
    EQUAL(entry.master_to_slave_stats.written, 1);
    CHECK(entry.created_ns / 1000000000 > 1700000000);
    EQUAL(eshm_list_get(list, eshm_list_count(list), &entry), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_list_close(list), ESHM_SUCCESS);
    EQUAL(eshm_list_count(list), 0);
    EQUAL(eshm_list_close(list), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_remove(name, NULL, false), ESHM_ERROR_ROLE_MISMATCH);
    CHECK(is_there(name));
    close_both(both);
    CHECK(is_there(name));
    EQUAL(eshm_remove(name, NULL, false), ESHM_SUCCESS);
    CHECK(!is_there(name));
    EQUAL(eshm_remove(name, "/dev/shm", false), ESHM_ERROR_SHM_ATTACH);
    EQUAL(eshm_remove(NULL, NULL, false), ESHM_ERROR_INVALID_PARAM);
}

static void foreign_files(void)
{
    const char *name = bus_name("foreign");
    ESHMOptions wish = eshm_default_options(name);
    ESHMEntry entry;
    FILE *file = fopen(bus_file(name), "w");
    CHECK(file != NULL);
    EQUAL(fwrite("not a bus at all, but long enough to be looked at", 40, 1, file), 1);
    EQUAL(fclose(file), 0);
    CHECK(chmod(bus_file(name), 0600) == 0);
    for (int role = ESHM_ROLE_MASTER; role <= ESHM_ROLE_AUTO; role++) {
        ESHMConfig config = eshm_default_config(name);
        config.role = (enum ESHMRole)role;
        CHECK(eshm_init(&config) == NULL);
        EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
        CHECK(strstr(eshm_last_error(), name) != NULL);
    }
    CHECK(eshm_tap_open(&wish, ESHM_MASTER_TO_SLAVE, false) == NULL);
    ESHMList *list = eshm_list_open("/dev/shm");
    CHECK(find_entry(list, name, &entry));
    EQUAL(entry.kind, ESHM_ENTRY_FOREIGN);
    CHECK(entry.why[0] != '\0');
    EQUAL(eshm_list_close(list), ESHM_SUCCESS);
    CHECK(eshm_remove(name, NULL, true) != ESHM_SUCCESS);
    CHECK(is_there(name));
    EQUAL(unlink(bus_file(name)), 0);
}

/** Opens as told; NULL with a text that holds both words is what the callers look for. */
static ESHMHandle *open_telling(const char *name, enum ESHMRole role, ESHMSchema writes,
                                ESHMSchema reads)
{
    ESHMOptions options = eshm_default_options(name);
    options.role = role;
    options.writes = writes;
    options.reads = reads;
    return eshm_open(&options);
}

static void is_refused(ESHMHandle *handle, const char *one, const char *other)
{
    CHECK(handle == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    CHECK(strstr(eshm_last_error(), one) != NULL && strstr(eshm_last_error(), other) != NULL);
}

/** What is carried is told by the list; whoever says otherwise is refused; who says nothing passes. */
static void schemas(void)
{
    const char *name = bus_name("schemas");
    const ESHMSchema none = eshm_schema(NULL, 0);
    ESHMSchema telemetry = eshm_schema("telemetry", 3), other = eshm_schema("telemetry", 4);
    telemetry.size = 48;
    telemetry.layout = 0xabc;
    ESHMHandle *master = open_telling(name, ESHM_ROLE_MASTER, telemetry, none);
    CHECK(master != NULL);
    ESHMHandle *slave = open_telling(name, ESHM_ROLE_SLAVE, none, other);
    is_refused(slave, "telemetry:3", "telemetry:4");
    slave = open_telling(name, ESHM_ROLE_SLAVE, other, none);
    is_refused(slave, "no schema from slave to master", "telemetry:4");
    other = telemetry;
    other.size = 40;
    is_refused(open_telling(name, ESHM_ROLE_SLAVE, none, other), "48 bytes", "40 bytes");
    /* What is not said is not compared. */
    slave = open_telling(name, ESHM_ROLE_SLAVE, none, eshm_schema("telemetry", 3));
    CHECK(slave != NULL);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    /* Neither by a program that was compiled before there were schemas, or says nothing. */
    ESHMOptions silent = eshm_default_options(name);
    silent.role = ESHM_ROLE_SLAVE;
    silent.struct_size = offsetof(ESHMOptions, writes);
    silent.writes = eshm_schema("not looked at", 1);
    slave = eshm_open(&silent);
    CHECK(slave != NULL);
    ESHMList *list = eshm_list_open(NULL);
    bool is_seen = false;
    for (size_t index = 0; index < eshm_list_count(list); index++) {
        ESHMEntry entry;
        memset(&entry, 0, sizeof entry);
        entry.struct_size = sizeof entry;
        EQUAL(eshm_list_get(list, index, &entry), ESHM_SUCCESS);
        if (strcmp(entry.name, name) == 0) {
            is_seen = true;
            CHECK(strcmp(entry.master_to_slave_schema.name, "telemetry") == 0);
            EQUAL(entry.master_to_slave_schema.version, 3);
            EQUAL(entry.master_to_slave_schema.size, 48);
            EQUAL(entry.master_to_slave_schema.layout, 0xabc);
            CHECK(entry.slave_to_master_schema.name == NULL);
        }
    }
    CHECK(is_seen);
    EQUAL(eshm_list_close(list), ESHM_SUCCESS);
    /* A tap says what it reads, too. */
    ESHMOptions listening = eshm_default_options(name);
    listening.reads = eshm_schema("telemetry", 4);
    CHECK(eshm_tap_open(&listening, ESHM_MASTER_TO_SLAVE, false) == NULL);
    CHECK(strstr(eshm_last_error(), "telemetry:3") != NULL);
    listening.reads.version = 3;
    ESHMTap *tap = eshm_tap_open(&listening, ESHM_MASTER_TO_SLAVE, false);
    CHECK(tap != NULL);
    EQUAL(eshm_tap_close(tap), ESHM_SUCCESS);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    /* What cannot be a schema is a wrong parameter, and makes no bus. */
    ESHMSchema wrong[4] = {eshm_schema("", 1), eshm_schema("a\nb", 1), eshm_schema(NULL, 1), telemetry};
    wrong[3].reserved = 1;
    for (int index = 0; index < 4; index++) {
        CHECK(open_telling(name, ESHM_ROLE_MASTER, wrong[index], none) == NULL);
        EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
    }
    CHECK(eshm_tap_open(&listening, ESHM_MASTER_TO_SLAVE, false) == NULL);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"version", version},
        {"options", options},
        {"options_that_cannot_be", options_that_cannot_be},
        {"wishes_are_wishes", wishes_are_wishes},
        {"roles_are_left_alone", roles_are_left_alone},
        {"timeouts_and_ids", timeouts_and_ids},
        {"long_messages", long_messages},
        {"writing_waits_for_room", writing_waits_for_room},
        {"many_at_once", many_at_once},
        {"claims", claims},
        {"peeks", peeks},
        {"overwriting", overwriting},
        {"peers_and_figures", peers_and_figures},
        {"last_errors_are_of_their_thread", last_errors_are_of_their_thread},
        {"taps", taps},
        {"lists_and_removal", lists_and_removal},
        {"foreign_files", foreign_files},
        {"schemas", schemas},
    };
    return RUN(tests, argc, argv);
}
