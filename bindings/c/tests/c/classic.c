/* classic.c - the interface of ESHM 1.0, promise by promise. Sees nothing of what came later. */
#define ESHM_ONLY_1_0
#include "eshm.h"
#include "check.h"

static ESHMHandle *open_as(const char *name, enum ESHMRole role)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = role;
    return eshm_init(&config);
}

typedef struct pair {
    ESHMHandle *master, *slave;
} pair;

static pair open_both(const char *name)
{
    pair both;
    both.master = open_as(name, ESHM_ROLE_MASTER);
    CHECK(both.master != NULL);
    both.slave = open_as(name, ESHM_ROLE_SLAVE);
    CHECK(both.slave != NULL);
    return both;
}

static void close_both(pair both)
{
    EQUAL(eshm_destroy(both.slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(both.master), ESHM_SUCCESS);
}

static void defaults(void)
{
    ESHMConfig config = eshm_default_config("some name");
    CHECK(strcmp(config.shm_name, "some name") == 0);
    EQUAL(config.role, ESHM_ROLE_AUTO);
    EQUAL(config.disconnect_behavior, ESHM_DISCONNECT_ON_TIMEOUT);
    EQUAL(config.stale_threshold_ms, 100);
    EQUAL(config.reconnect_wait_ms, 5000);
    EQUAL(config.reconnect_retry_interval_ms, 100);
    EQUAL(config.max_reconnect_attempts, 50);
    CHECK(config.auto_cleanup && config.use_threads);
    EQUAL(ESHM_MAX_DATA_SIZE, 4096);
    EQUAL(ESHM_HEARTBEAT_INTERVAL_MS, 1);
}

static void error_texts(void)
{
    CHECK(strcmp(eshm_error_string(ESHM_SUCCESS), "Success") == 0);
    CHECK(strcmp(eshm_error_string(ESHM_ERROR_INVALID_PARAM), "Invalid parameter") == 0);
    for (int code = -20; code < 20; code++) {
        CHECK(eshm_error_string(code) != NULL && eshm_error_string(code)[0] != '\0');
    }
    CHECK(eshm_error_string(ESHM_ERROR_TIMEOUT) == eshm_error_string(ESHM_ERROR_TIMEOUT));
}

/* Every call with this handle gives the documented code. */
static void all_refuse(ESHMHandle *handle)
{
    char buffer[8] = "";
    size_t size = 0;
    bool alive = false;
    ESHMStats stats;
    enum ESHMRole role;
    EQUAL(eshm_write(handle, "x", 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read(handle, buffer, sizeof buffer), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read_ex(handle, buffer, sizeof buffer, &size, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_check_remote_alive(handle, &alive), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_get_stats(handle, &stats), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_get_role(handle, &role), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_update_heartbeat(handle), ESHM_ERROR_NOT_INITIALIZED);
    EQUAL(eshm_destroy(handle), ESHM_ERROR_INVALID_PARAM);
}

static void wrong_handles(void)
{
    uint64_t own[64] = {0};
    all_refuse(NULL);
    all_refuse((ESHMHandle *)own);
    all_refuse((ESHMHandle *)(uintptr_t)1);
    all_refuse((ESHMHandle *)(uintptr_t)64);
    all_refuse((ESHMHandle *)UINTPTR_MAX);
    ESHMHandle *closed = open_as(bus_name("closed"), ESHM_ROLE_MASTER);
    CHECK(closed != NULL);
    EQUAL(eshm_destroy(closed), ESHM_SUCCESS);
    all_refuse(closed);
    /* The place is used again; the old handle still leads nowhere. */
    ESHMHandle *next = open_as(bus_name("closed"), ESHM_ROLE_MASTER);
    CHECK(next != NULL && next != closed);
    all_refuse(closed);
    EQUAL(eshm_destroy(next), ESHM_SUCCESS);
}

static void wrong_parameters(void)
{
    pair both = open_both(bus_name("params"));
    char buffer[8];
    CHECK(eshm_init(NULL) == NULL);
    CHECK(open_as(NULL, ESHM_ROLE_MASTER) == NULL);
    CHECK(open_as("", ESHM_ROLE_MASTER) == NULL);
    CHECK(open_as(bus_name("role"), (enum ESHMRole)3) == NULL);
    EQUAL(eshm_write(both.master, NULL, 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read(both.slave, NULL, 1), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_read_ex(both.slave, NULL, 1, NULL, 0), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_check_remote_alive(both.slave, NULL), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_get_stats(both.slave, NULL), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_get_role(both.slave, NULL), ESHM_ERROR_INVALID_PARAM);
    EQUAL(eshm_write(both.master, "abc", 3), ESHM_SUCCESS);
    EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, NULL, 0), ESHM_SUCCESS);
    close_both(both);
}

static void names(void)
{
    char slashed[300];
    const char *name = bus_name("na/me");
    snprintf(slashed, sizeof slashed, "%s", name);
    *strrchr(slashed, '/') = '_';
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    CHECK(master != NULL);
    struct stat facts;
    EQUAL(stat(bus_file(slashed), &facts), 0);
    EQUAL(facts.st_mode & 0777, 0600);
    CHECK(facts.st_size <= 2 << 20);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    CHECK(!is_there(slashed));
}

static enum ESHMRole role_of(ESHMHandle *handle)
{
    enum ESHMRole role = ESHM_ROLE_AUTO;
    EQUAL(eshm_get_role(handle, &role), ESHM_SUCCESS);
    return role;
}

static void roles(void)
{
    const char *name = bus_name("roles");
    CHECK(open_as(name, ESHM_ROLE_SLAVE) == NULL);
    CHECK(!is_there(name));
    ESHMHandle *first = open_as(name, ESHM_ROLE_AUTO);
    CHECK(first != NULL);
    EQUAL(role_of(first), ESHM_ROLE_MASTER);
    ESHMHandle *second = open_as(name, ESHM_ROLE_AUTO);
    CHECK(second != NULL);
    EQUAL(role_of(second), ESHM_ROLE_SLAVE);
    /* One slave at a time; a third process has no place. */
    CHECK(open_as(name, ESHM_ROLE_SLAVE) == NULL);
    CHECK(open_as(name, ESHM_ROLE_AUTO) == NULL);
    EQUAL(eshm_destroy(first), ESHM_SUCCESS);
    EQUAL(eshm_destroy(second), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

static void messages_both_ways(void)
{
    pair both = open_both(bus_name("messages"));
    char buffer[64];
    size_t size = 99;
    EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, &size, 0), ESHM_ERROR_NO_DATA);
    EQUAL(size, 0);
    EQUAL(eshm_read_ex(both.slave, buffer, sizeof buffer, &size, 1), ESHM_ERROR_TIMEOUT);
    EQUAL(eshm_write(both.master, "to the slave", 12), ESHM_SUCCESS);
    EQUAL(eshm_write(both.slave, "to the master", 13), ESHM_SUCCESS);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 12);
    CHECK(memcmp(buffer, "to the slave", 12) == 0);
    EQUAL(eshm_read_ex(both.master, buffer, sizeof buffer, &size, 1000), ESHM_SUCCESS);
    EQUAL(size, 13);
    CHECK(memcmp(buffer, "to the master", 13) == 0);
    double before = seconds();
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), ESHM_ERROR_TIMEOUT);
    CHECK(seconds() - before > 0.99);
    close_both(both);
}

static void empty_messages(void)
{
    pair both = open_both(bus_name("empty"));
    char buffer[8] = "kept";
    size_t size = 99;
    EQUAL(eshm_write(both.master, "", 0), ESHM_SUCCESS);
    EQUAL(eshm_write(both.master, NULL, 0), ESHM_SUCCESS);
    EQUAL(eshm_write(both.master, "x", 1), ESHM_SUCCESS);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 0);
    EQUAL(eshm_read_ex(both.slave, NULL, 0, &size, 0), ESHM_SUCCESS);
    EQUAL(size, 0);
    CHECK(strcmp(buffer, "kept") == 0);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 1);
    close_both(both);
}

static void long_messages(void)
{
    static char out[ESHM_MAX_DATA_SIZE + 1], in[ESHM_MAX_DATA_SIZE];
    pair both = open_both(bus_name("long"));
    memset(out, 'm', sizeof out);
    EQUAL(eshm_write(both.master, out, sizeof out), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(eshm_write(both.master, out, SIZE_MAX), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(eshm_write(both.master, out, ESHM_MAX_DATA_SIZE), ESHM_SUCCESS);
    /* Too small a buffer, twice: the message stays. */
    EQUAL(eshm_read(both.slave, in, sizeof in - 1), ESHM_ERROR_BUFFER_TOO_SMALL);
    size_t size = 99;
    EQUAL(eshm_read_ex(both.slave, in, 0, &size, 0), ESHM_ERROR_BUFFER_TOO_SMALL);
    EQUAL(size, 0);
    EQUAL(eshm_read(both.slave, in, sizeof in), ESHM_MAX_DATA_SIZE);
    CHECK(memcmp(in, out, sizeof in) == 0);
    close_both(both);
}

/* Writes until full; reads all back, in order, and nothing else. Returns how many. */
static long fill_and_drain(ESHMHandle *from, ESHMHandle *to, size_t size)
{
    static unsigned char out[ESHM_MAX_DATA_SIZE], in[ESHM_MAX_DATA_SIZE];
    uint32_t count = 0, next;
    int code;
    memset(out, 'f', sizeof out);
    for (;; count++) {
        memcpy(out, &count, sizeof count);
        code = eshm_write(from, out, size);
        if (code != ESHM_SUCCESS) {
            break;
        }
    }
    EQUAL(code, ESHM_ERROR_BUFFER_FULL);
    for (next = 0; next < count; next++) {
        EQUAL(eshm_read(to, in, sizeof in), size);
        memcpy(out, &next, sizeof next);
        CHECK(memcmp(in, out, size) == 0);
    }
    EQUAL(eshm_read_ex(to, in, sizeof in, NULL, 0), ESHM_ERROR_NO_DATA);
    return count;
}

static void default_geometry(void)
{
    pair both = open_both(bus_name("geometry"));
    for (int lap = 0; lap < 3; lap++) {
        CHECK(fill_and_drain(both.master, both.slave, 4096) >= 64);
        CHECK(fill_and_drain(both.slave, both.master, 4096) >= 64);
        CHECK(fill_and_drain(both.master, both.slave, 48) >= 4000);
        CHECK(fill_and_drain(both.slave, both.master, 48) >= 4000);
    }
    close_both(both);
}

static void statistics(void)
{
    pair both = open_both(bus_name("stats"));
    ESHMStats stats;
    char buffer[8];
    for (int at = 0; at < 5; at++) {
        EQUAL(eshm_write(both.master, "abc", 3), ESHM_SUCCESS);
        EQUAL(eshm_write(both.slave, "abc", 3), ESHM_SUCCESS);
    }
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 3);
    EQUAL(eshm_read(both.master, buffer, sizeof buffer), 3);
    EQUAL(eshm_read(both.master, buffer, sizeof buffer), 3);
    EVENTUALLY(eshm_get_stats(both.slave, &stats) == ESHM_SUCCESS && stats.master_alive
               && stats.slave_alive);
    EQUAL(stats.m2s_write_count, 5);
    EQUAL(stats.m2s_read_count, 1);
    EQUAL(stats.s2m_write_count, 5);
    EQUAL(stats.s2m_read_count, 2);
    EQUAL(stats.master_pid, getpid());
    EQUAL(stats.slave_pid, getpid());
    EQUAL(stats.stale_threshold, 100);
    /* Deltas are counted per handle, since it asked last. */
    ESHMStats before, after;
    EQUAL(eshm_get_stats(both.master, &before), ESHM_SUCCESS);
    EVENTUALLY(eshm_get_stats(both.slave, &stats) == ESHM_SUCCESS
               && stats.master_heartbeat > before.master_heartbeat + 20);
    EQUAL(eshm_get_stats(both.master, &after), ESHM_SUCCESS);
    EQUAL(after.master_heartbeat_delta, after.master_heartbeat - before.master_heartbeat);
    EQUAL(after.slave_heartbeat_delta, after.slave_heartbeat - before.slave_heartbeat);
    CHECK(after.master_heartbeat_delta > 20);
    close_both(both);
}

static void remote_alive(void)
{
    const char *name = bus_name("alive");
    bool alive = true;
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    EQUAL(eshm_check_remote_alive(master, &alive), ESHM_SUCCESS);
    CHECK(!alive);
    ESHMHandle *slave = open_as(name, ESHM_ROLE_SLAVE);
    EVENTUALLY(eshm_check_remote_alive(master, &alive) == ESHM_SUCCESS && alive);
    EVENTUALLY(eshm_check_remote_alive(slave, &alive) == ESHM_SUCCESS && alive);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EVENTUALLY(eshm_check_remote_alive(master, &alive) == ESHM_SUCCESS && !alive);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

static void second_master(void)
{
    const char *name = bus_name("masters");
    char buffer[8] = "";
    pair both = open_both(name);
    EQUAL(eshm_write(both.master, "1", 1), ESHM_SUCCESS);
    ESHMHandle *second = open_as(name, ESHM_ROLE_MASTER);
    CHECK(second != NULL);
    EQUAL(role_of(second), ESHM_ROLE_MASTER);
    EQUAL(eshm_write(both.master, "lost?", 5), ESHM_ERROR_ROLE_MISMATCH);
    EQUAL(eshm_write(second, "2", 1), ESHM_SUCCESS);
    /* The slave goes on by itself: what was unread, then what comes. */
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 1);
    EQUAL(buffer[0], '1');
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 1);
    EQUAL(buffer[0], '2');
    EQUAL(eshm_write(both.slave, "3", 1), ESHM_SUCCESS);
    EQUAL(eshm_read(second, buffer, sizeof buffer), 1);
    EQUAL(buffer[0], '3');
    EQUAL(eshm_destroy(both.master), ESHM_SUCCESS);
    EQUAL(eshm_write(second, "4", 1), ESHM_SUCCESS);
    EQUAL(eshm_destroy(second), ESHM_SUCCESS);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 1);
    EQUAL(buffer[0], '4');
    EQUAL(eshm_destroy(both.slave), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

static void without_threads(void)
{
    const char *name = bus_name("threadless");
    /* The background thread of earlier handles ends with them. */
    EVENTUALLY(threads() == 1);
    ESHMConfig config = eshm_default_config(name);
    config.use_threads = false;
    config.role = ESHM_ROLE_MASTER;
    ESHMHandle *master = eshm_init(&config);
    config.role = ESHM_ROLE_SLAVE;
    ESHMHandle *slave = eshm_init(&config);
    CHECK(master != NULL && slave != NULL);
    EQUAL(threads(), 1);
    bool alive = false;
    char buffer[8];
    /* Calls keep the heartbeat: while the slave's do, the master sees it. */
    EVENTUALLY(eshm_update_heartbeat(slave) == ESHM_SUCCESS
               && eshm_check_remote_alive(master, &alive) == ESHM_SUCCESS && alive);
    EQUAL(eshm_write(master, "abc", 3), ESHM_SUCCESS);
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 3);
    ESHMStats one, two;
    EQUAL(eshm_get_stats(master, &one), ESHM_SUCCESS);
    EQUAL(eshm_update_heartbeat(master), ESHM_SUCCESS);
    EQUAL(eshm_update_heartbeat(master), ESHM_SUCCESS);
    EQUAL(eshm_get_stats(master, &two), ESHM_SUCCESS);
    CHECK(two.master_heartbeat >= one.master_heartbeat + 2);
    /* Without calls it looks hung; with the next ones it is back. */
    EVENTUALLY(eshm_update_heartbeat(master) == ESHM_SUCCESS
               && eshm_check_remote_alive(master, &alive) == ESHM_SUCCESS && !alive);
    EVENTUALLY(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 0) == ESHM_ERROR_NO_DATA
               && eshm_check_remote_alive(master, &alive) == ESHM_SUCCESS && alive);
    EQUAL(threads(), 1);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

/* Opens both sides, lets them leave, and says whether the file is still there. */
static bool stays(const char *name, bool of_master, bool of_slave, bool slave_last)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = ESHM_ROLE_MASTER;
    config.auto_cleanup = of_master;
    ESHMHandle *master = eshm_init(&config);
    config.role = ESHM_ROLE_SLAVE;
    config.auto_cleanup = of_slave;
    ESHMHandle *slave = eshm_init(&config);
    CHECK(master != NULL && slave != NULL);
    EQUAL(eshm_destroy(slave_last ? master : slave), ESHM_SUCCESS);
    CHECK(is_there(name));
    EQUAL(eshm_destroy(slave_last ? slave : master), ESHM_SUCCESS);
    bool there = is_there(name);
    unlink(bus_file(name));
    return there;
}

static void cleanup(void)
{
    const char *name = bus_name("cleanup");
    ESHMConfig config = eshm_default_config(name);
    for (int slave_last = 0; slave_last < 2; slave_last++) {
        /* It is enough that one side asked for it. */
        CHECK(!stays(name, true, true, slave_last));
        CHECK(!stays(name, true, false, slave_last));
        CHECK(!stays(name, false, true, slave_last));
        CHECK(stays(name, false, false, slave_last));
    }
    config.auto_cleanup = false;
    config.role = ESHM_ROLE_MASTER;
    ESHMHandle *alone = eshm_init(&config);
    CHECK(alone != NULL);
    EQUAL(eshm_write(alone, "kept", 4), ESHM_SUCCESS);
    EQUAL(eshm_destroy(alone), ESHM_SUCCESS);
    CHECK(is_there(name));
    /* What was unread waits for whoever comes. */
    pair both = open_both(name);
    char buffer[8];
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 4);
    close_both(both);
    CHECK(!is_there(name));
}

static void unread_waits_for_the_next(void)
{
    const char *name = bus_name("unread");
    pair both = open_both(name);
    char buffer[8];
    EQUAL(eshm_write(both.slave, "up", 2), ESHM_SUCCESS);
    EQUAL(eshm_write(both.master, "down", 4), ESHM_SUCCESS);
    EQUAL(eshm_destroy(both.slave), ESHM_SUCCESS);
    both.slave = open_as(name, ESHM_ROLE_SLAVE);
    CHECK(both.slave != NULL);
    EQUAL(eshm_destroy(both.master), ESHM_SUCCESS);
    both.master = open_as(name, ESHM_ROLE_MASTER);
    CHECK(both.master != NULL);
    EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 4);
    EQUAL(eshm_read(both.master, buffer, sizeof buffer), 2);
    close_both(both);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"defaults", defaults},
        {"error_texts", error_texts},
        {"wrong_handles", wrong_handles},
        {"wrong_parameters", wrong_parameters},
        {"names", names},
        {"roles", roles},
        {"messages_both_ways", messages_both_ways},
        {"empty_messages", empty_messages},
        {"long_messages", long_messages},
        {"default_geometry", default_geometry},
        {"statistics", statistics},
        {"remote_alive", remote_alive},
        {"second_master", second_master},
        {"without_threads", without_threads},
        {"cleanup", cleanup},
        {"unread_waits_for_the_next", unread_waits_for_the_next},
    };
    return RUN(tests, argc, argv);
}
