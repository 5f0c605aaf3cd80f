/* death.c - masters and slaves that are killed, stopped and started again. */
#include "eshm.h"
#include "check.h"

static ESHMConfig config_for(const char *name, enum ESHMRole role)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = role;
    return config;
}

static ESHMHandle *open_as(const char *name, enum ESHMRole role)
{
    ESHMConfig config = config_for(name, role);
    ESHMHandle *handle = eshm_init(&config);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
    }
    CHECK(handle != NULL);
    return handle;
}

/* A process that opens a bus, writes three messages, and then does nothing until it is killed. */
typedef struct peer {
    const char *name;
    enum ESHMRole role;
    unsigned lengths;
    line ready;
} peer;

static void be_peer(void *with)
{
    peer *self = (peer *)with;
    ESHMHandle *handle = open_as(self->name, self->role);
    for (int number = 0; number < 3; number++) {
        EQUAL(eshm_write(handle, &number, sizeof number), ESHM_SUCCESS);
    }
    line_tell(&self->ready);
    pause();
}

static pid_t start_peer(peer *self)
{
    self->ready = line_new();
    pid_t child = spawn(be_peer, self);
    line_wait(&self->ready);
    return child;
}

static void expect_three(ESHMHandle *handle)
{
    int number, got;
    for (number = 0; number < 3; number++) {
        EQUAL(eshm_read(handle, &got, sizeof got), sizeof got);
        EQUAL(got, number);
    }
}

/* Opens a slave whose master wrote three messages and was killed. */
static ESHMHandle *orphan(ESHMConfig config, peer *master)
{
    bool alive = true;
    master->name = config.shm_name;
    master->role = ESHM_ROLE_MASTER;
    pid_t child = start_peer(master);
    ESHMHandle *slave = eshm_init(&config);
    CHECK(slave != NULL);
    killed(child);
    EVENTUALLY(eshm_check_remote_alive(slave, &alive) == ESHM_SUCCESS && !alive);
    /* What was unread before the death still comes first. */
    expect_three(slave);
    return slave;
}

/* A master is back: reading goes on by itself. */
static void goes_on(ESHMHandle *slave, peer *master)
{
    bool alive = false;
    pid_t child = start_peer(master);
    expect_three(slave);
    EVENTUALLY(eshm_check_remote_alive(slave, &alive) == ESHM_SUCCESS && alive);
    killed(child);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
}

static void removed_with_its_master(ESHMHandle **slave, const ESHMConfig *config, peer *master)
{
    bool alive = true;
    master->name = config->shm_name;
    master->role = ESHM_ROLE_MASTER;
    pid_t child = start_peer(master);
    *slave = eshm_init(config);
    CHECK(*slave != NULL);
    expect_three(*slave);
    killed(child);
    EVENTUALLY(eshm_check_remote_alive(*slave, &alive) == ESHM_SUCCESS && !alive);
    EQUAL(eshm_remove(config->shm_name, NULL, true), ESHM_SUCCESS);
    CHECK(!is_there(config->shm_name));
}

/* The bus itself is taken away and made anew: for programs of ESHM 1.0 that is a master that died and
 * came back. */
static void removed_and_made_anew(void)
{
    peer master;
    ESHMHandle *slave;
    char buffer[8];
    bool alive = true;
    ESHMConfig config = config_for(bus_name("anew"), ESHM_ROLE_SLAVE);
    config.reconnect_retry_interval_ms = 20;
    config.reconnect_wait_ms = 300;
    for (int round = 0; round < 3; round++) {
        config.disconnect_behavior = (enum ESHMDisconnectBehavior)round;
        removed_with_its_master(&slave, &config, &master);
        double before = seconds();
        if (round == ESHM_DISCONNECT_IMMEDIATELY) {
            EQUAL(eshm_read(slave, buffer, sizeof buffer), ESHM_ERROR_MASTER_STALE);
            EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_MASTER_STALE);
            EQUAL(eshm_write(slave, "x", 1), ESHM_ERROR_MASTER_STALE);
        } else if (round == ESHM_DISCONNECT_ON_TIMEOUT) {
            EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 20), ESHM_ERROR_TIMEOUT);
            EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 5000), ESHM_ERROR_MASTER_STALE);
            CHECK(seconds() - before >= 0.3);
        } else {
            EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
            EQUAL(eshm_write(slave, "x", 1), ESHM_ERROR_BUFFER_FULL);
            EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 500), ESHM_ERROR_TIMEOUT);
            CHECK(seconds() - before >= 0.5);
        }
        EQUAL(eshm_check_remote_alive(slave, &alive), ESHM_SUCCESS);
        CHECK(!alive);
        enum ESHMRole role;
        EQUAL(eshm_get_role(slave, &role), ESHM_SUCCESS);
        EQUAL(role, ESHM_ROLE_SLAVE);
        /* One that only asks whether somebody is there, or one that reads. */
        pid_t child = start_peer(&master);
        EVENTUALLY(round == 2
                   || (eshm_check_remote_alive(slave, &alive) == ESHM_SUCCESS && alive));
        expect_three(slave);
        EQUAL(eshm_write(slave, "back", 4), ESHM_SUCCESS);
        ESHMStats stats;
        EQUAL(eshm_get_stats(slave, &stats), ESHM_SUCCESS);
        EQUAL(stats.m2s_read_count, 3);
        EQUAL(stats.s2m_write_count, 1);
        EQUAL(stats.slave_pid, getpid());
        killed(child);
        EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
        eshm_remove(config.shm_name, NULL, true);
    }
}

typedef struct waiting_reader {
    ESHMHandle *slave;
    int sum;
} waiting_reader;

static void *read_three(void *with)
{
    waiting_reader *self = (waiting_reader *)with;
    int got = 0;
    for (int number = 0; number < 3; number++) {
        EQUAL(eshm_read_ex(self->slave, &got, sizeof got, NULL, ESHM_WAIT_FOREVER), ESHM_SUCCESS);
        self->sum += got;
    }
    return NULL;
}

/* Two threads wait, one for ever, while the bus is made anew; one is served by it. Destroying ends the
 * waiting of one that has no bus. */
static void threads_at_a_bus_made_anew(void)
{
    peer master;
    pthread_t thread;
    waiting_reader reader = {NULL, 0};
    ESHMConfig config = config_for(bus_name("anew-threads"), ESHM_ROLE_SLAVE);
    config.disconnect_behavior = ESHM_DISCONNECT_NEVER;
    config.reconnect_retry_interval_ms = 5;
    removed_with_its_master(&reader.slave, &config, &master);
    EQUAL(pthread_create(&thread, NULL, read_three, &reader), 0);
    for (int call = 0; call < 50; call++) {
        EQUAL(eshm_write(reader.slave, "x", 1), ESHM_ERROR_BUFFER_FULL);
        poll(NULL, 0, 1);
    }
    pid_t child = start_peer(&master);
    EQUAL(pthread_join(thread, NULL), 0);
    EQUAL(reader.sum, 3);
    EQUAL(eshm_write(reader.slave, "x", 1), ESHM_SUCCESS);
    killed(child);
    EQUAL(eshm_destroy(reader.slave), ESHM_SUCCESS);
    eshm_remove(config.shm_name, NULL, true);
}

/* A master whose bus was removed makes it anew, unless another one did: then it is deposed. */
static void a_master_makes_it_anew(void)
{
    char buffer[8];
    ESHMConfig config = config_for(bus_name("master-anew"), ESHM_ROLE_MASTER);
    config.reconnect_retry_interval_ms = 1;
    ESHMHandle *master = eshm_init(&config), *second;
    CHECK(master != NULL);
    EQUAL(eshm_remove(config.shm_name, NULL, true), ESHM_SUCCESS);
    EVENTUALLY(eshm_read_ex(master, buffer, 8, NULL, 0) == ESHM_ERROR_NO_DATA
               && is_there(config.shm_name));
    EQUAL(eshm_write(master, "x", 1), ESHM_SUCCESS);
    EQUAL(eshm_remove(config.shm_name, NULL, true), ESHM_SUCCESS);
    second = eshm_init(&config);
    CHECK(second != NULL);
    EVENTUALLY(eshm_write(master, "x", 1) == ESHM_ERROR_ROLE_MISMATCH);
    EQUAL(eshm_read(master, buffer, sizeof buffer), ESHM_ERROR_ROLE_MISMATCH);
    EQUAL(eshm_write(second, "x", 1), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    EQUAL(eshm_destroy(second), ESHM_SUCCESS);
    eshm_remove(config.shm_name, NULL, true);
}

static void immediately(void)
{
    peer master;
    char buffer[8];
    ESHMConfig config = config_for(bus_name("immediately"), ESHM_ROLE_SLAVE);
    config.disconnect_behavior = ESHM_DISCONNECT_IMMEDIATELY;
    ESHMHandle *slave = orphan(config, &master);
    for (int again = 0; again < 3; again++) {
        EQUAL(eshm_read(slave, buffer, sizeof buffer), ESHM_ERROR_MASTER_STALE);
        EQUAL(eshm_read_ex(slave, buffer, 8, NULL, 0), ESHM_ERROR_MASTER_STALE);
    }
    goes_on(slave, &master);
}

static void on_timeout_up_to_the_attempts(void)
{
    peer master;
    char buffer[8];
    ESHMConfig config = config_for(bus_name("attempts"), ESHM_ROLE_SLAVE);
    config.reconnect_retry_interval_ms = 50;
    config.max_reconnect_attempts = 6;
    config.reconnect_wait_ms = 0;
    double before = seconds();
    ESHMHandle *slave = orphan(config, &master);
    int code, timeouts = 0;
    while ((code = eshm_read_ex(slave, buffer, 8, NULL, 5)) == ESHM_ERROR_TIMEOUT) {
        timeouts++;
        CHECK(seconds() - before < 20);
    }
    EQUAL(code, ESHM_ERROR_MASTER_STALE);
    CHECK(timeouts > 0);
    CHECK(seconds() - before >= 0.3);
    goes_on(slave, &master);
}

static void on_timeout_up_to_the_wait(void)
{
    peer master;
    char buffer[8];
    ESHMConfig config = config_for(bus_name("wait"), ESHM_ROLE_SLAVE);
    config.max_reconnect_attempts = 0;
    config.reconnect_wait_ms = 200;
    double before = seconds();
    ESHMHandle *slave = orphan(config, &master);
    /* One long read is told as soon as the limit is reached, before its own time is up. */
    EQUAL(eshm_read_ex(slave, buffer, 8, NULL, 30000), ESHM_ERROR_MASTER_STALE);
    CHECK(seconds() - before >= 0.2);
    goes_on(slave, &master);
}

static void without_limits(void)
{
    for (int never = 0; never < 2; never++) {
        peer master;
        char buffer[8];
        ESHMConfig config = config_for(bus_name(never ? "never" : "unlimited"), ESHM_ROLE_SLAVE);
        /* Both without an end: both limits 0, or NEVER whatever the limits. */
        config.reconnect_wait_ms = never ? 1 : 0;
        config.max_reconnect_attempts = never ? 1 : 0;
        config.reconnect_retry_interval_ms = 1;
        config.disconnect_behavior = never ? ESHM_DISCONNECT_NEVER : ESHM_DISCONNECT_ON_TIMEOUT;
        ESHMHandle *slave = orphan(config, &master);
        for (int again = 0; again < 30; again++) {
            EQUAL(eshm_read_ex(slave, buffer, 8, NULL, 5), ESHM_ERROR_TIMEOUT);
        }
        EQUAL(eshm_read_ex(slave, buffer, 8, NULL, 0), ESHM_ERROR_NO_DATA);
        goes_on(slave, &master);
    }
}

static void a_master_waits_for_slaves(void)
{
    char buffer[8];
    const char *name = bus_name("patient");
    for (int automatic = 0; automatic < 2; automatic++) {
        ESHMConfig config = config_for(name, automatic ? ESHM_ROLE_AUTO : ESHM_ROLE_MASTER);
        config.disconnect_behavior = ESHM_DISCONNECT_IMMEDIATELY;
        ESHMHandle *master = eshm_init(&config);
        CHECK(master != NULL);
        peer slave;
        bool alive = true;
        slave.name = name;
        slave.role = ESHM_ROLE_SLAVE;
        killed(start_peer(&slave));
        EVENTUALLY(eshm_check_remote_alive(master, &alive) == ESHM_SUCCESS && !alive);
        expect_three(master);
        for (int again = 0; again < 10; again++) {
            EQUAL(eshm_read_ex(master, buffer, 8, NULL, 1), ESHM_ERROR_TIMEOUT);
        }
        EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    }
}

/* A master that sends numbers as fast as it can, starting behind what an earlier one committed. */
static void be_counting_master(void *with)
{
    peer *self = (peer *)with;
    ESHMHandle *handle = open_as(self->name, ESHM_ROLE_MASTER);
    ESHMMessageId last;
    uint64_t number = 0;
    int code = eshm_last_committed(handle, &last);
    CHECK(code == ESHM_SUCCESS || code == ESHM_ERROR_NO_DATA);
    if (code == ESHM_SUCCESS) {
        number = last.number + 1;
    }
    line_tell(&self->ready);
    for (;;) {
        unsigned char message[200];
        memset(message, (int)(number & 0xff), sizeof message);
        memcpy(message, &number, sizeof number);
        code = eshm_write(handle, message, 8 + number % self->lengths);
        CHECK(code == ESHM_SUCCESS || code == ESHM_ERROR_BUFFER_FULL);
        number += code == ESHM_SUCCESS;
    }
}

static uint64_t expect_number(ESHMHandle *slave, uint64_t expected, unsigned lengths)
{
    unsigned char message[200];
    uint64_t number;
    size_t size = 0;
    EQUAL(eshm_read_ex(slave, message, sizeof message, &size, 10000), ESHM_SUCCESS);
    memcpy(&number, message, sizeof number);
    EQUAL(number, expected);
    EQUAL(size, 8 + number % lengths);
    for (size_t at = 8; at < size; at++) {
        CHECK(message[at] == (number & 0xff));
    }
    return expected + 1;
}

static void killed_while_they_write(const char *name, unsigned lengths)
{
    peer master;
    uint64_t next = 0;
    master.name = name;
    master.lengths = lengths;
    ESHMHandle *slave = NULL;
    for (int life = 0; life < lives(25); life++) {
        master.ready = line_new();
        pid_t child = spawn(be_counting_master, &master);
        line_wait(&master.ready);
        if (slave == NULL) {
            slave = open_as(master.name, ESHM_ROLE_SLAVE);
        }
        /* Killed at another point of its work every time. */
        for (int count = 0; count < 300 + life % 25 * 37; count++) {
            next = expect_number(slave, next, lengths);
        }
        killed(child);
        close(master.ready.ends[0]);
        close(master.ready.ends[1]);
    }
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
}

static void masters_killed_while_they_write(void)
{
    killed_while_they_write(bus_name("killed-writing"), 193);
}

/* Only what fits one frame, which takes a shorter way. */
static void masters_killed_while_they_write_little(void)
{
    killed_while_they_write(bus_name("killed-writing-little"), 41);
}

/* A slave that reads, or peeks and releases, and tells each number. */
typedef struct reading {
    const char *name;
    bool in_place;
    int told;
} reading;

static void be_slave(void *with)
{
    reading *self = (reading *)with;
    ESHMHandle *slave = open_as(self->name, ESHM_ROLE_SLAVE);
    for (;;) {
        uint64_t number;
        ESHMView view;
        if (self->in_place) {
            if (eshm_peek(slave, &view, NULL, 1000) != ESHM_SUCCESS) {
                continue;
            }
            memcpy(&number, view.data, sizeof number);
            CHECK(write(self->told, &number, sizeof number) == sizeof number);
            EQUAL(eshm_release(slave), ESHM_SUCCESS);
        } else if (eshm_read(slave, &number, sizeof number) == sizeof number) {
            CHECK(write(self->told, &number, sizeof number) == sizeof number);
        }
    }
}

static void slaves_killed_while_they_read(void)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        reading slave;
        line told = line_new();
        uint64_t sent = 0, next = 0, number;
        slave.name = bus_name(in_place ? "killed-peeking" : "killed-reading");
        slave.in_place = in_place != 0;
        slave.told = told.ends[1];
        ESHMHandle *master = open_as(slave.name, ESHM_ROLE_MASTER);
        for (int life = 0; life < lives(15); life++) {
            pid_t child = spawn(be_slave, &slave);
            for (int count = 0; count < 50 + life % 15 * 7; count++) {
                while (eshm_write(master, &sent, sizeof sent) == ESHM_SUCCESS) {
                    sent++;
                    if (sent > next + 500) {
                        break;
                    }
                }
                CHECK(read(told.ends[0], &number, sizeof number) == sizeof number);
                /* read(): at most once, so one may be missing after a kill; peek(): at least once,
                 * so one may come twice. Nothing else, and in order. */
                CHECK(in_place ? number == next || number + 1 == next
                               : number == next || number == next + 1);
                next = number + 1;
            }
            killed(child);
            struct pollfd more = {told.ends[0], POLLIN, 0};
            while (poll(&more, 1, 0) == 1) {
                CHECK(read(told.ends[0], &number, sizeof number) == sizeof number);
                CHECK(in_place ? number == next || number + 1 == next
                               : number == next || number == next + 1);
                next = number + 1;
            }
        }
        EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    }
}

/* A master that is stopped, replaced, and continued finds itself replaced. */
typedef struct stopping {
    const char *name;
    line ready, go, done;
} stopping;

static void be_stopped(void *with)
{
    stopping *self = (stopping *)with;
    ESHMHandle *handle = open_as(self->name, ESHM_ROLE_MASTER);
    EQUAL(eshm_write(handle, "first", 5), ESHM_SUCCESS);
    line_tell(&self->ready);
    line_wait(&self->go);
    EQUAL(eshm_write(handle, "never", 5), ESHM_ERROR_ROLE_MISMATCH);
    CHECK(strstr(eshm_last_error(), "fenced") != NULL);
    EVENTUALLY(eshm_read_ex(handle, NULL, 0, NULL, 0) == ESHM_ERROR_ROLE_MISMATCH);
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
    line_tell(&self->done);
}

static void a_stopped_master_is_replaced(void)
{
    stopping old;
    char buffer[8] = "";
    old.name = bus_name("stopped");
    old.ready = line_new();
    old.go = line_new();
    old.done = line_new();
    pid_t child = spawn(be_stopped, &old);
    line_wait(&old.ready);
    ESHMHandle *slave = open_as(old.name, ESHM_ROLE_SLAVE);
    EQUAL(kill(child, SIGSTOP), 0);
    EQUAL(waitpid(child, NULL, WUNTRACED), child);
    ESHMHandle *master = open_as(old.name, ESHM_ROLE_MASTER);
    EQUAL(eshm_write(master, "second", 6), ESHM_SUCCESS);
    EQUAL(kill(child, SIGCONT), 0);
    line_tell(&old.go);
    line_wait(&old.done);
    joined(child);
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 5);
    CHECK(memcmp(buffer, "first", 5) == 0);
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 6);
    CHECK(memcmp(buffer, "second", 6) == 0);
    EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    CHECK(!is_there(old.name));
}

/* AUTO takes the place of a master that is stopped, as it did of one that is stale. */
static void automatic_replaces_a_stopped_master(void)
{
    peer old;
    enum ESHMRole role;
    old.name = bus_name("auto-stopped");
    old.role = ESHM_ROLE_MASTER;
    pid_t child = start_peer(&old);
    EQUAL(kill(child, SIGSTOP), 0);
    EQUAL(waitpid(child, NULL, WUNTRACED), child);
    ESHMHandle *next = open_as(old.name, ESHM_ROLE_AUTO);
    EQUAL(eshm_get_role(next, &role), ESHM_SUCCESS);
    EQUAL(role, ESHM_ROLE_MASTER);
    killed(child);
    EQUAL(eshm_destroy(next), ESHM_SUCCESS);
}

/* A handle that was inherited belongs to the parent. */
static void be_heir(void *with)
{
    ESHMHandle *handle = (ESHMHandle *)with;
    char buffer[8];
    bool alive;
    ESHMStats stats;
    EQUAL(eshm_write(handle, "x", 1), ESHM_ERROR_NOT_INITIALIZED);
    EQUAL(eshm_read(handle, buffer, sizeof buffer), ESHM_ERROR_NOT_INITIALIZED);
    EQUAL(eshm_check_remote_alive(handle, &alive), ESHM_ERROR_NOT_INITIALIZED);
    EQUAL(eshm_get_stats(handle, &stats), ESHM_ERROR_NOT_INITIALIZED);
    EQUAL(eshm_update_heartbeat(handle), ESHM_ERROR_NOT_INITIALIZED);
    CHECK(eshm_last_error()[0] != '\0');
    EQUAL(eshm_destroy(handle), ESHM_SUCCESS);
    EQUAL(eshm_write(handle, "x", 1), ESHM_ERROR_INVALID_PARAM);
    /* The child can open a bus of its own. */
    ESHMHandle *own = open_as(bus_name("heir"), ESHM_ROLE_MASTER);
    EQUAL(eshm_write(own, "x", 1), ESHM_SUCCESS);
    EQUAL(eshm_destroy(own), ESHM_SUCCESS);
}

static void inherited_handles(void)
{
    const char *name = bus_name("inherited");
    char buffer[8];
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    ESHMHandle *slave = open_as(name, ESHM_ROLE_SLAVE);
    for (int warm = 0; warm < 40; warm++) {
        EQUAL(eshm_write(master, "w", 1), ESHM_SUCCESS);
        EQUAL(eshm_read(slave, buffer, sizeof buffer), 1);
        if (warm == 0 || warm == 39) {
            joined(spawn(be_heir, master));
            joined(spawn(be_heir, slave));
        }
    }
    CHECK(is_there(name));
    EQUAL(eshm_write(master, "still", 5), ESHM_SUCCESS);
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 5);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

static void *read_for_long(void *with)
{
    char buffer[8];
    eshm_read_ex((ESHMHandle *)with, buffer, sizeof buffer, NULL, 20000);
    return NULL;
}

/* Forked while another thread of the parent is inside a call on the handle. */
static void inherited_in_the_middle_of_a_call(void)
{
    const char *name = bus_name("inherited-busy");
    pthread_t reader;
    ESHMStatsEx stats;
    stats.struct_size = sizeof stats;
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    ESHMHandle *slave = open_as(name, ESHM_ROLE_SLAVE);
    EQUAL(pthread_create(&reader, NULL, read_for_long, slave), 0);
    EVENTUALLY(eshm_get_stats_ex(slave, &stats) == ESHM_SUCCESS
               && stats.master_to_slave.reader_parks > 0);
    joined(spawn(be_heir, slave));
    EQUAL(eshm_write(master, "x", 1), ESHM_SUCCESS);
    EQUAL(pthread_join(reader, NULL), 0);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"removed_and_made_anew", removed_and_made_anew},
        {"threads_at_a_bus_made_anew", threads_at_a_bus_made_anew},
        {"a_master_makes_it_anew", a_master_makes_it_anew},
        {"immediately", immediately},
        {"on_timeout_up_to_the_attempts", on_timeout_up_to_the_attempts},
        {"on_timeout_up_to_the_wait", on_timeout_up_to_the_wait},
        {"without_limits", without_limits},
        {"a_master_waits_for_slaves", a_master_waits_for_slaves},
        {"masters_killed_while_they_write", masters_killed_while_they_write},
        {"masters_killed_while_they_write_little", masters_killed_while_they_write_little},
        {"slaves_killed_while_they_read", slaves_killed_while_they_read},
        {"a_stopped_master_is_replaced", a_stopped_master_is_replaced},
        {"automatic_replaces_a_stopped_master", automatic_replaces_a_stopped_master},
        {"inherited_handles", inherited_handles},
        {"inherited_in_the_middle_of_a_call", inherited_in_the_middle_of_a_call},
    };
    return RUN(tests, argc, argv);
}
