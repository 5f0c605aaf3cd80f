/* opening.c - how long opening waits and what it asks for; and calls that mind one length. */
#include "eshm.h"
#include "check.h"

static ESHMOptions as(const char *name, enum ESHMRole role)
{
    ESHMOptions options = eshm_default_options(name);
    options.role = role;
    return options;
}

static ESHMHandle *opened(ESHMOptions options)
{
    ESHMHandle *handle = eshm_open(&options);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
    }
    CHECK(handle != NULL);
    return handle;
}

/* Those of eshm for Rust; ESHMConfig has its own, see classic.c. */
static void the_defaults(void)
{
    ESHMOptions options = eshm_default_options("x");
    EQUAL(options.takeover, ESHM_TAKEOVER_NEVER);
    EQUAL(options.disconnect_behavior, ESHM_DISCONNECT_NEVER);
    EQUAL(options.cleanup, ESHM_CLEANUP_WHEN_READ);
    EQUAL(options.auto_cleanup, true);
    EQUAL(options.open_timeout_ms, ESHM_WAIT_FOREVER);
    EQUAL(options.trusted_count, 0);
    EQUAL(options.mode, 0);
    ESHMConfig config = eshm_default_config("x");
    EQUAL(config.disconnect_behavior, ESHM_DISCONNECT_ON_TIMEOUT);
}

static void it_need_not_wait(void)
{
    const char *name = bus_name("none");
    ESHMOptions slave = as(name, ESHM_ROLE_SLAVE);
    slave.open_timeout_ms = 0;
    CHECK(eshm_open(&slave) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    slave.open_timeout_ms = 70;
    double begun = seconds();
    CHECK(eshm_open(&slave) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    CHECK(strstr(eshm_last_error(), name) != NULL);
    CHECK(seconds() - begun >= 0.07);
    /* Compiled when the struct ended before: as it was then, whatever lies behind. */
    slave.open_timeout_ms = ESHM_WAIT_FOREVER;
    slave.struct_size = offsetof(ESHMOptions, open_timeout_ms);
    CHECK(eshm_open(&slave) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    /* The calls of ESHM 1.0 never wait. */
    ESHMConfig config = eshm_default_config(name);
    config.role = ESHM_ROLE_SLAVE;
    CHECK(eshm_init(&config) == NULL);
}

static void make_it_later(void *with)
{
    poll(NULL, 0, 150);
    ESHMHandle *master = opened(as((const char *)with, ESHM_ROLE_MASTER));
    EQUAL(eshm_write(master, "at last", 7), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

static void it_waits(uint32_t timeout_ms)
{
    char buffer[8];
    const char *name = bus_name("waits");
    ESHMOptions slave = as(name, ESHM_ROLE_SLAVE);
    slave.open_timeout_ms = timeout_ms;
    pid_t child = spawn(make_it_later, (void *)(uintptr_t)name);
    ESHMHandle *handle = opened(slave);
    size_t size = 0;
    EQUAL(eshm_read_ex(handle, buffer, sizeof buffer, &size, 20000), ESHM_SUCCESS);
    EQUAL(size, 7);
    joined(child);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

static void it_waits_for_long(void)
{
    it_waits(20000);
    it_waits(ESHM_WAIT_FOREVER);
    /* Who may make the bus waits for nobody. */
    EQUAL(eshm_destroy(opened(as(bus_name("waits"), ESHM_ROLE_AUTO))), ESHM_SUCCESS);
}

static void as_found(void)
{
    const char *name = bus_name("found");
    ESHMOptions master = as(name, ESHM_ROLE_MASTER), slave = as(name, ESHM_ROLE_SLAVE);
    master.master_to_slave.frames = 1024;
    master.master_to_slave.frame_size = 128;
    master.master_to_slave.overflow = ESHM_OVERFLOW_OVERWRITE;
    ESHMHandle *handle = opened(master);
    /* One property asked for: the others are what they are by default, or as found. */
    slave.master_to_slave.frames = 1024;
    CHECK(eshm_open(&slave) == NULL);
    CHECK(strstr(eshm_last_error(), "frame_size 128, not 64") != NULL);
    slave.master_to_slave.overflow = ESHM_OVERFLOW_AS_FOUND;
    EQUAL(eshm_destroy(opened(slave)), ESHM_SUCCESS);
    slave.master_to_slave.frames = 2048;
    CHECK(eshm_open(&slave) == NULL);
    CHECK(strstr(eshm_last_error(), "frames 1024, not 2048") != NULL);
    slave.master_to_slave.overflow = (enum ESHMOverflow)3;
    CHECK(eshm_open(&slave) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
    /* Creating, it is refusing. */
    master.slave_to_master.overflow = ESHM_OVERFLOW_AS_FOUND;
    handle = opened(master);
    ESHMGeometry shape;
    EQUAL(eshm_get_geometry(handle, ESHM_SLAVE_TO_MASTER, &shape), ESHM_SUCCESS);
    EQUAL(shape.overflow, ESHM_OVERFLOW_REFUSE);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
}

/* Without a mode the file's own decides; with one it must not be more open. */
static void modes(void)
{
    const char *name = bus_name("mode");
    struct stat facts;
    ESHMOptions master = as(name, ESHM_ROLE_MASTER), slave = as(name, ESHM_ROLE_SLAVE);
    ESHMHandle *handle = opened(master);
    EQUAL(stat(bus_file(name), &facts), 0);
    EQUAL(facts.st_mode & 0777, 0600);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
    master.mode = 0666;
    handle = opened(master);
    EQUAL(eshm_destroy(opened(slave)), ESHM_SUCCESS);
    slave.mode = 0600;
    CHECK(eshm_open(&slave) == NULL);
    CHECK(strstr(eshm_last_error(), "mode 0666") != NULL);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
}

static void read_exactly(enum ESHMOverflow overflow)
{
    const char *name = bus_name("exact");
    ESHMOptions master = as(name, ESHM_ROLE_MASTER);
    master.master_to_slave.overflow = overflow;
    ESHMHandle *out = opened(master), *in = opened(as(name, ESHM_ROLE_SLAVE));
    ESHMMessage message;
    uint64_t value = 7;
    char buffer[16];
    message.struct_size = sizeof message;
    EQUAL(eshm_read_exact(in, &value, sizeof value, &message, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_read_exact(in, &value, sizeof value, &message, 2), ESHM_ERROR_TIMEOUT);
    for (size_t size = 0; size <= 16; size += 16) {
        EQUAL(eshm_write(out, "0123456789abcdef", size), ESHM_SUCCESS);
        EQUAL(eshm_read_exact(in, &value, sizeof value, &message, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
        EQUAL(message.size, size);
        EQUAL(eshm_read_exact(in, &value, sizeof value, NULL, 5), ESHM_ERROR_BUFFER_TOO_SMALL);
        CHECK(strstr(eshm_last_error(), "the type 8; it is kept") != NULL);
        EQUAL(eshm_read(in, buffer, sizeof buffer), size);
    }
    value = 99;
    EQUAL(eshm_write(out, &value, sizeof value), ESHM_SUCCESS);
    value = 0;
    EQUAL(eshm_read_exact(in, &value, sizeof value, &message, 1000), ESHM_SUCCESS);
    EQUAL(value, 99);
    EQUAL(message.size, 8);
    EQUAL(message.id.number, 2);
    EQUAL(eshm_write(out, "", 0), ESHM_SUCCESS);
    EQUAL(eshm_read_exact(in, NULL, 0, NULL, 0), ESHM_SUCCESS);
    EQUAL(eshm_read_exact(in, NULL, 8, NULL, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_destroy(in), ESHM_SUCCESS);
    EQUAL(eshm_destroy(out), ESHM_SUCCESS);
}

static void one_length(void)
{
    read_exactly(ESHM_OVERFLOW_REFUSE);
    read_exactly(ESHM_OVERFLOW_OVERWRITE);
}

static void *read_all(void *with)
{
    ESHMHandle *in = (ESHMHandle *)with;
    ESHMStatsEx stats;
    stats.struct_size = sizeof stats;
    EVENTUALLY(eshm_get_stats_ex(in, &stats) == ESHM_SUCCESS
               && stats.master_to_slave.writer_parks > 0);
    for (uint64_t value, expected = 0; expected < 1000; expected++) {
        EQUAL(eshm_read_exact(in, &value, sizeof value, NULL, 20000), ESHM_SUCCESS);
        EQUAL(value, expected);
    }
    return NULL;
}

static void many_wait_for_room(void)
{
    enum { COUNT = 1000 };
    static uint64_t values[COUNT];
    static ESHMView views[COUNT];
    const char *name = bus_name("many");
    ESHMOptions master = as(name, ESHM_ROLE_MASTER);
    master.master_to_slave.frames = 64;
    ESHMHandle *out = opened(master), *in = opened(as(name, ESHM_ROLE_SLAVE));
    pthread_t reader;
    size_t written = 9;
    for (size_t at = 0; at < COUNT; at++) {
        values[at] = at;
        views[at].data = &values[at];
        views[at].size = sizeof values[at];
    }
    EQUAL(pthread_create(&reader, NULL, read_all, in), 0);
    EQUAL(eshm_write_many_ex(out, views, COUNT, &written, ESHM_WAIT_FOREVER), ESHM_SUCCESS);
    EQUAL(written, COUNT);
    EQUAL(pthread_join(reader, NULL), 0);
    /* The time runs out: what was sent is said. Then not even one fits. */
    EQUAL(eshm_write_many_ex(out, views, COUNT, &written, 30), ESHM_SUCCESS);
    EQUAL(written, 63);
    EQUAL(eshm_write_many_ex(out, views, COUNT, &written, 3), ESHM_ERROR_TIMEOUT);
    EQUAL(written, 0);
    EQUAL(eshm_write_many_ex(out, views, COUNT, &written, 0), ESHM_ERROR_BUFFER_FULL);
    EQUAL(eshm_write_many_ex(out, NULL, 0, &written, 0), ESHM_SUCCESS);
    EQUAL(eshm_write_many_ex(out, NULL, 1, &written, 0), ESHM_ERROR_INVALID_PARAM);
    for (uint64_t value; written < 63; written++) {
        EQUAL(eshm_read_exact(in, &value, sizeof value, NULL, 0), ESHM_SUCCESS);
        EQUAL(value, written);
    }
    EQUAL(eshm_destroy(in), ESHM_SUCCESS);
    EQUAL(eshm_destroy(out), ESHM_SUCCESS);
}

/* A master too, where it says so: with eshm_open() both roles are told that the peer is gone. */
static void a_master_gives_up_if_asked(void)
{
    const char *name = bus_name("gives-up");
    ESHMOptions master = as(name, ESHM_ROLE_MASTER);
    char buffer[8];
    master.disconnect_behavior = ESHM_DISCONNECT_IMMEDIATELY;
    ESHMHandle *handle = opened(master);
    EQUAL(eshm_destroy(opened(as(name, ESHM_ROLE_SLAVE))), ESHM_SUCCESS);
    EVENTUALLY(eshm_read_ex(handle, buffer, sizeof buffer, NULL, 0) == ESHM_ERROR_MASTER_STALE);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"the_defaults", the_defaults},
        {"it_need_not_wait", it_need_not_wait},
        {"it_waits_for_long", it_waits_for_long},
        {"as_found", as_found},
        {"modes", modes},
        {"one_length", one_length},
        {"many_wait_for_room", many_wait_for_room},
        {"a_master_gives_up_if_asked", a_master_gives_up_if_asked},
    };
    return RUN(tests, argc, argv);
}
