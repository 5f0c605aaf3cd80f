/* threads.c - several threads on one handle, a handle destroyed under them, and many handles. */
#include "eshm.h"
#include "check.h"

#include <stddef.h>
#include <sys/resource.h>

static ESHMHandle *open_as(const char *name, enum ESHMRole role)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = role;
    ESHMHandle *handle = eshm_init(&config);
    CHECK(handle != NULL);
    return handle;
}

enum { WRITERS = 2, READERS = 2, COUNT = 20000 };

typedef struct work {
    ESHMHandle *handle;
    int number;
    size_t size;
    uint64_t seen[WRITERS * COUNT / 64 + 1];
    long count;
} work;

typedef struct note {
    uint32_t writer, number;
    unsigned char body[1000]; /* long enough to meet another thread in the middle */
} note;

static void *write_all(void *with)
{
    work *self = (work *)with;
    note message;
    memset(&message, self->number, self->size);
    message.writer = (uint32_t)self->number;
    for (message.number = 0; message.number < COUNT; message.number++) {
        int code;
        while ((code = eshm_write(self->handle, &message, self->size)) != ESHM_SUCCESS) {
            EQUAL(code, ESHM_ERROR_BUFFER_FULL);
            sched_yield();
        }
    }
    return NULL;
}

static void *read_until_empty(void *with)
{
    work *self = (work *)with;
    note message;
    size_t size;
    uint32_t last[WRITERS] = {0, 0};
    int code;
    while ((code = eshm_read_ex(self->handle, &message, sizeof message, &size, 5000))
           == ESHM_SUCCESS) {
        EQUAL(size, self->size);
        if (message.writer == WRITERS) {
            return NULL; /* the last one, one for each reader */
        }
        CHECK(message.writer < WRITERS && message.number < COUNT);
        for (size_t at = 0; at < size - offsetof(note, body); at++) {
            CHECK(message.body[at] == message.writer);
        }
        /* One reader sees the numbers of one writer rising. */
        CHECK(message.number >= last[message.writer]);
        last[message.writer] = message.number;
        uint64_t place = (uint64_t)message.writer * COUNT + message.number;
        self->seen[place / 64] |= (uint64_t)1 << place % 64;
        self->count++;
    }
    fail(__FILE__, __LINE__, eshm_error_string(code));
    return NULL;
}

/* Two threads write and two read, on one handle each way: nothing lost, doubled or torn. */
static void two_of_each(const char *name, size_t size)
{
    work *writers = (work *)calloc(WRITERS, sizeof *writers);
    work *readers = (work *)calloc(READERS, sizeof *readers);
    pthread_t writing[WRITERS], reading[READERS];
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    ESHMHandle *slave = open_as(name, ESHM_ROLE_SLAVE);
    note last;
    int at;
    memset(&last, 0, sizeof last);
    last.writer = WRITERS;
    for (at = 0; at < READERS; at++) {
        readers[at].handle = slave;
        readers[at].size = size;
        EQUAL(pthread_create(&reading[at], NULL, read_until_empty, &readers[at]), 0);
    }
    for (at = 0; at < WRITERS; at++) {
        writers[at].handle = master;
        writers[at].number = at;
        writers[at].size = size;
        EQUAL(pthread_create(&writing[at], NULL, write_all, &writers[at]), 0);
    }
    for (at = 0; at < WRITERS; at++) {
        EQUAL(pthread_join(writing[at], NULL), 0);
    }
    for (at = 0; at < READERS; at++) {
        EQUAL(eshm_write_ex(master, &last, size, NULL, 10000), ESHM_SUCCESS);
    }
    long count = 0;
    for (at = 0; at < READERS; at++) {
        EQUAL(pthread_join(reading[at], NULL), 0);
        count += readers[at].count;
    }
    EQUAL(count, WRITERS * COUNT);
    for (uint64_t place = 0; place < (uint64_t)WRITERS * COUNT; place++) {
        uint64_t bit = (uint64_t)1 << place % 64;
        bool first = (readers[0].seen[place / 64] & bit) != 0;
        CHECK(first != ((readers[1].seen[place / 64] & bit) != 0));
    }
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    free(writers);
    free(readers);
}

static void two_of_each_with_long_messages(void)
{
    two_of_each(bus_name("two-long"), sizeof(note));
}

/* Short enough for the quickest way through, which a thread gets and loses all the time here. */
static void two_of_each_with_short_messages(void)
{
    two_of_each(bus_name("two-short"), 40);
}

typedef struct waiting {
    ESHMHandle *handle;
    uint32_t timeout_ms;
    int code;
} waiting;

static void *wait_for_message(void *with)
{
    waiting *self = (waiting *)with;
    char buffer[64];
    self->code = eshm_read_ex(self->handle, buffer, sizeof buffer, NULL, self->timeout_ms);
    return NULL;
}

static bool reader_sleeps(ESHMHandle *handle)
{
    ESHMStatsEx stats;
    stats.struct_size = sizeof stats;
    EQUAL(eshm_get_stats_ex(handle, &stats), ESHM_SUCCESS);
    return stats.master_to_slave.reader_parks > 0;
}

/* While one thread waits for a message, others write, ask, and read without waiting. */
static void a_waiting_reader_stands_in_nobodys_way(void)
{
    const char *name = bus_name("waiting");
    char buffer[64];
    pthread_t thread;
    waiting wait;
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    ESHMHandle *slave = open_as(name, ESHM_ROLE_SLAVE);
    wait.handle = slave;
    wait.timeout_ms = ESHM_WAIT_FOREVER;
    EQUAL(pthread_create(&thread, NULL, wait_for_message, &wait), 0);
    EVENTUALLY(reader_sleeps(slave));
    for (int at = 0; at < 1000; at++) {
        EQUAL(eshm_write(slave, "up", 2), ESHM_SUCCESS);
        EQUAL(eshm_read(master, buffer, sizeof buffer), 2);
    }
    EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 0), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_read_ex(slave, buffer, sizeof buffer, NULL, 30), ESHM_ERROR_TIMEOUT);
    ESHMMessageId id;
    EQUAL(eshm_last_read(slave, &id), ESHM_ERROR_NO_DATA);
    EQUAL(eshm_write(master, "down", 4), ESHM_SUCCESS);
    EQUAL(pthread_join(thread, NULL), 0);
    EQUAL(wait.code, ESHM_SUCCESS);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

/* Destroying a handle ends the calls that wait on it, and frees it after them. */
static void destroyed_under_waiting_threads(void)
{
    const char *name = bus_name("destroyed");
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    for (int round = 0; round < 5; round++) {
        pthread_t threads[3];
        waiting wait[3];
        ESHMHandle *slave = open_as(name, ESHM_ROLE_SLAVE);
        for (int at = 0; at < 3; at++) {
            wait[at].handle = slave;
            wait[at].timeout_ms = at == 0 ? ESHM_WAIT_FOREVER : 60000;
            EQUAL(pthread_create(&threads[at], NULL, wait_for_message, &wait[at]), 0);
        }
        EVENTUALLY(reader_sleeps(slave));
        EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
        for (int at = 0; at < 3; at++) {
            EQUAL(pthread_join(threads[at], NULL), 0);
            EQUAL(wait[at].code, ESHM_ERROR_INVALID_PARAM);
        }
        EQUAL(eshm_destroy(slave), ESHM_ERROR_INVALID_PARAM);
    }
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

typedef struct stopping {
    ESHMHandle *handle;
    volatile int begun;
    int code;
} stopping;

static void *write_until_closed(void *with)
{
    stopping *self = (stopping *)with;
    bool alive;
    do {
        self->code = eshm_write(self->handle, "message", 7);
        if (self->code == ESHM_SUCCESS) {
            self->code = eshm_check_remote_alive(self->handle, &alive);
        }
        self->begun = 1;
    } while (self->code == ESHM_SUCCESS || self->code == ESHM_ERROR_BUFFER_FULL);
    return NULL;
}

/* ... at whatever point of a busy call it happens. */
static void destroyed_under_busy_threads(void)
{
    const char *name = bus_name("busy");
    for (int round = 0; round < 40; round++) {
        pthread_t threads[2];
        stopping stop[2];
        ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
        for (int at = 0; at < 2; at++) {
            stop[at].handle = master;
            stop[at].begun = 0;
            EQUAL(pthread_create(&threads[at], NULL, write_until_closed, &stop[at]), 0);
        }
        EVENTUALLY(stop[0].begun && stop[1].begun);
        EQUAL(eshm_destroy(master), ESHM_SUCCESS);
        for (int at = 0; at < 2; at++) {
            EQUAL(pthread_join(threads[at], NULL), 0);
            EQUAL(stop[at].code, ESHM_ERROR_INVALID_PARAM);
        }
    }
}

static void a_thousand_handles(void)
{
    enum { HANDLES = 1000 };
    static ESHMHandle *handles[HANDLES];
    char name[256], buffer[8];
    struct rlimit files;
    EQUAL(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    EQUAL(setrlimit(RLIMIT_NOFILE, &files), 0);
    EVENTUALLY(threads() == 1);
    for (int at = 0; at < HANDLES; at++) {
        ESHMOptions options = eshm_default_options(name);
        snprintf(name, sizeof name, "%s.%d", bus_name("thousand"), at / 2);
        options.role = at % 2 ? ESHM_ROLE_SLAVE : ESHM_ROLE_MASTER;
        options.master_to_slave.frames = 64;
        options.slave_to_master.frames = 64;
        handles[at] = eshm_open(&options);
        if (handles[at] == NULL) {
            fail(__FILE__, at, eshm_last_error());
        }
    }
    EQUAL(threads(), 2);
    for (int at = 0; at < HANDLES; at++) {
        EQUAL(eshm_write(handles[at], &at, sizeof at), ESHM_SUCCESS);
    }
    for (int at = 0, got; at < HANDLES; at++) {
        EQUAL(eshm_read(handles[at], &got, sizeof got), sizeof got);
        EQUAL(got, at ^ 1);
        EQUAL(eshm_read_ex(handles[at], buffer, 8, NULL, 0), ESHM_ERROR_NO_DATA);
    }
    for (int at = 0; at < HANDLES; at++) {
        EQUAL(eshm_destroy(handles[at]), ESHM_SUCCESS);
    }
    EVENTUALLY(threads() == 1);
}

/* A signal handler inside a call of the same thread gets an error instead of a deadlock. */
static ESHMHandle *in_handler;
static volatile int handled, code_in_handler;

static void handle_signal(int number)
{
    char buffer[8];
    (void)number;
    code_in_handler = eshm_read_ex(in_handler, buffer, sizeof buffer, NULL, 1000);
    handled = 1;
}

typedef struct interrupting {
    pthread_t other;
    ESHMHandle *master;
    uint64_t parks;
} interrupting;

static uint64_t reader_parks(ESHMHandle *handle)
{
    ESHMStatsEx stats;
    stats.struct_size = sizeof stats;
    EQUAL(eshm_get_stats_ex(handle, &stats), ESHM_SUCCESS);
    return stats.master_to_slave.reader_parks;
}

static void *interrupt(void *with)
{
    interrupting *self = (interrupting *)with;
    EVENTUALLY(reader_parks(in_handler) > self->parks);
    EQUAL(pthread_kill(self->other, SIGUSR1), 0);
    EVENTUALLY(handled);
    EQUAL(code_in_handler, ESHM_ERROR_MUTEX_LOCK);
    EQUAL(eshm_write(self->master, "go on", 5), ESHM_SUCCESS);
    return NULL;
}

static void inside_a_signal_handler(void)
{
    const char *name = bus_name("signals");
    interrupting thread;
    pthread_t interrupter;
    char buffer[8];
    struct sigaction action;
    thread.other = pthread_self();
    thread.master = open_as(name, ESHM_ROLE_MASTER);
    in_handler = open_as(name, ESHM_ROLE_SLAVE);
    memset(&action, 0, sizeof action);
    action.sa_handler = handle_signal;
    EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
    for (int calls_before = 0; calls_before <= 200; calls_before += 50) {
        /* With calls before it, the reading half has become this thread's own. */
        for (int call = 0; call < calls_before; call++) {
            EQUAL(eshm_read_ex(in_handler, buffer, 8, NULL, 0), ESHM_ERROR_NO_DATA);
        }
        handled = 0;
        thread.parks = reader_parks(in_handler);
        EQUAL(pthread_create(&interrupter, NULL, interrupt, &thread), 0);
        EQUAL(eshm_read_ex(in_handler, buffer, 8, NULL, ESHM_WAIT_FOREVER), ESHM_SUCCESS);
        EQUAL(pthread_join(interrupter, NULL), 0);
    }
    EQUAL(eshm_destroy(in_handler), ESHM_SUCCESS);
    EQUAL(eshm_destroy(thread.master), ESHM_SUCCESS);
}

/* A stream at full speed, the writer retrying whenever the ring is full. */
enum { STREAM = 300000 };

static void be_streaming_slave(void *with)
{
    uint64_t message[6], next;
    ESHMHandle *slave;
    ESHMConfig config = eshm_default_config((const char *)with);
    config.role = ESHM_ROLE_SLAVE;
    EVENTUALLY((slave = eshm_init(&config)) != NULL);
    for (next = 0; next < STREAM; next++) {
        size_t size = 0;
        EQUAL(eshm_read_ex(slave, message, sizeof message, &size, 10000), ESHM_SUCCESS);
        EQUAL(size, sizeof message);
        EQUAL(message[0], next);
        EQUAL(message[5], ~next);
    }
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
}

static void a_stream_at_full_speed(void)
{
    const char *name = bus_name("stream");
    uint64_t message[6] = {0, 0, 0, 0, 0, 0}, next;
    pid_t child = spawn(be_streaming_slave, (void *)(uintptr_t)name);
    ESHMHandle *master = open_as(name, ESHM_ROLE_MASTER);
    for (next = 0; next < STREAM; next++) {
        message[0] = next;
        message[5] = ~next;
        int code;
        while ((code = eshm_write(master, message, sizeof message)) == ESHM_ERROR_BUFFER_FULL) {
            sched_yield();
        }
        EQUAL(code, ESHM_SUCCESS);
    }
    joined(child);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"two_of_each_with_long_messages", two_of_each_with_long_messages},
        {"two_of_each_with_short_messages", two_of_each_with_short_messages},
        {"a_waiting_reader_stands_in_nobodys_way", a_waiting_reader_stands_in_nobodys_way},
        {"destroyed_under_waiting_threads", destroyed_under_waiting_threads},
        {"destroyed_under_busy_threads", destroyed_under_busy_threads},
        {"a_thousand_handles", a_thousand_handles},
        {"inside_a_signal_handler", inside_a_signal_handler},
        {"a_stream_at_full_speed", a_stream_at_full_speed},
    };
    return RUN(tests, argc, argv);
}
