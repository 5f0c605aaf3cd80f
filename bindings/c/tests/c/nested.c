/* nested.c - a signal handler that calls the very half whose call it interrupted, at every single
 * machine instruction of that call. It must be told so or be served, at once; whatever is accepted
 * arrives once, in order, and whatever is not does not. */
#include "eshm.h"
#include "check.h"

#include <stddef.h>

enum { MAIN, HANDLER, OTHER, SENDERS };

typedef struct note {
    uint32_t sender, number;
    unsigned char body[200];
} note;

static ESHMHandle *master, *slave;
static size_t body_size;
static uint32_t written[SENDERS], read_next[SENDERS];
static long steps, nested, served;
static bool is_reading, is_shared;

static ESHMHandle *open_as(const char *name, enum ESHMRole role)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = role;
    ESHMHandle *handle = eshm_init(&config);
    CHECK(handle != NULL);
    return handle;
}

static int send_as(int sender)
{
    note message;
    message.sender = (uint32_t)sender;
    message.number = written[sender];
    memset(message.body, (int)(message.number % 251), body_size);
    int code = eshm_write(master, &message, offsetof(note, body) + body_size);
    written[sender] += code == ESHM_SUCCESS;
    return code;
}

/** Of one sender the numbers come without a gap and without a repetition. */
static void expect_next(const note *message, size_t size)
{
    EQUAL(size, offsetof(note, body) + body_size);
    CHECK(message->sender < SENDERS);
    EQUAL(message->number, read_next[message->sender]++);
    for (size_t at = 0; at < body_size; at++) {
        EQUAL(message->body[at], message->number % 251);
    }
}

static void drain(void)
{
    note message;
    size_t size;
    while (eshm_read_ex(slave, &message, sizeof message, &size, 0) == ESHM_SUCCESS) {
        expect_next(&message, size);
    }
    for (int sender = 0; sender < SENDERS; sender++) {
        EQUAL(read_next[sender], written[sender]);
    }
}

#if defined(__x86_64__)

/* What a handler read while a read was under way, in the order of its own calls. A read that it
 * interrupts may have got its message already or not: so what was read is checked as a set. */
enum { MOST = 1 << 20 };
static unsigned char was_read[MOST];

static void mark(const note *message)
{
    CHECK(message->number < MOST);
    EQUAL(was_read[message->number]++, 0);
}

/* Which instruction of a call the handler calls at; 0: at every one. */
static long only_at, left_until;

static void on_step(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    int saved = errno, code;
    note message;
    double before = seconds();
    steps++;
    if (only_at != 0 && --left_until != 0) {
        return;
    }
    if (is_reading && is_shared) {
        /* The other thread may have left nothing. */
        code = eshm_read_ex(slave, &message, sizeof message, NULL, 0);
        if (code == ESHM_SUCCESS) {
            mark(&message);
        } else if (code == ESHM_ERROR_NO_DATA) {
            code = ESHM_SUCCESS;
        }
    } else if (is_reading) {
        code = eshm_read(slave, &message, sizeof message);
        if (code >= 0) {
            EQUAL(code, offsetof(note, body) + body_size);
            mark(&message);
            code = ESHM_SUCCESS;
        }
    } else {
        code = send_as(HANDLER);
    }
    nested += code == ESHM_ERROR_MUTEX_LOCK;
    served += code == ESHM_SUCCESS;
    if (code != ESHM_ERROR_MUTEX_LOCK && code != ESHM_SUCCESS) {
        EQUAL(code, ESHM_ERROR_BUFFER_FULL);
        CHECK(!is_reading);
    }
    /* Far more than another thread's turn takes, and far less than for ever. */
    CHECK(seconds() - before < 5);
    errno = saved;
}

#define STEPPING(call) \
    do { \
        __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc"); \
        call; \
        __asm__ volatile("pushfq\n\tandq $-257, (%%rsp)\n\tpopfq" ::: "memory", "cc"); \
    } while (0)

static void begin(const char *what, size_t size)
{
    struct sigaction action;
    const char *name = bus_name(what);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_step;
    action.sa_flags = SA_SIGINFO;
    EQUAL(sigaction(SIGTRAP, &action, NULL), 0);
    body_size = size;
    memset(written, 0, sizeof written);
    memset(read_next, 0, sizeof read_next);
    memset(was_read, 0, sizeof was_read);
    steps = nested = served = 0;
    master = open_as(name, ESHM_ROLE_MASTER);
    slave = open_as(name, ESHM_ROLE_SLAVE);
}

static void end(void)
{
    printf("  %ld instructions, %ld nested, %ld served\n", steps, nested, served);
    CHECK(steps > 0 && nested > 0 && served > 0);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
}

static volatile int is_over;

static void *write_too(void *with)
{
    (void)with;
    while (!is_over) {
        int code = send_as(OTHER);
        CHECK(code == ESHM_SUCCESS || code == ESHM_ERROR_BUFFER_FULL);
        poll(NULL, 0, 0);
    }
    return NULL;
}

static void *read_too(void *with)
{
    (void)with;
    while (!is_over) {
        note message;
        size_t size;
        int code = eshm_read_ex(slave, &message, sizeof message, &size, 0);
        if (code == ESHM_SUCCESS) {
            mark(&message);
        } else {
            EQUAL(code, ESHM_ERROR_NO_DATA);
        }
        poll(NULL, 0, 0);
    }
    return NULL;
}

/** Calls without steps between those with: the half becomes this thread's own, or does not. */
static void write_often(const char *what, size_t size, bool with_other)
{
    pthread_t other;
    begin(what, size);
    is_reading = false;
    is_over = false;
    is_shared = with_other;
    if (with_other) {
        EQUAL(pthread_create(&other, NULL, write_too, NULL), 0);
    }
    for (int round = 0; round < (with_other ? 60 : 30); round++) {
        int code = 0;
        for (int call = 0; call < round * 4; call++) {
            CHECK(send_as(MAIN) != ESHM_ERROR_MUTEX_LOCK);
        }
        STEPPING(code = send_as(MAIN));
        CHECK(code == ESHM_SUCCESS || code == ESHM_ERROR_BUFFER_FULL);
        if (!with_other) {
            drain();
        } else {
            note message;
            size_t got;
            while (eshm_read_ex(slave, &message, sizeof message, &got, 0) == ESHM_SUCCESS) {
                expect_next(&message, got);
            }
        }
    }
    if (with_other) {
        is_over = true;
        EQUAL(pthread_join(other, NULL), 0);
    }
    drain();
    end();
}

static void read_often(const char *what, size_t size, bool with_other)
{
    pthread_t other;
    note message;
    begin(what, size);
    is_reading = true;
    is_over = false;
    is_shared = with_other;
    if (with_other) {
        EQUAL(pthread_create(&other, NULL, read_too, NULL), 0);
    }
    for (int round = 0; round < 30; round++) {
        int code = 0;
        while (send_as(MAIN) == ESHM_SUCCESS) {
        }
        for (int call = 0; call < round; call++) {
            code = eshm_read_ex(slave, &message, sizeof message, NULL, 0);
            if (code == ESHM_SUCCESS) {
                mark(&message);
            } else {
                /* The other thread was so much faster that it took all there were. */
                EQUAL(code, ESHM_ERROR_NO_DATA);
                CHECK(with_other);
            }
        }
        /* The handler reads at most one message per instruction: there are more than enough. */
        STEPPING(code = eshm_read_ex(slave, &message, sizeof message, NULL, 0));
        if (code == ESHM_SUCCESS) {
            mark(&message);
        } else {
            EQUAL(code, ESHM_ERROR_NO_DATA);
        }
        while (send_as(MAIN) == ESHM_SUCCESS) {
        }
    }
    if (with_other) {
        is_over = true;
        EQUAL(pthread_join(other, NULL), 0);
    }
    while (eshm_read_ex(slave, &message, sizeof message, NULL, 0) == ESHM_SUCCESS) {
        mark(&message);
    }
    for (uint32_t number = 0; number < written[MAIN]; number++) {
        EQUAL(was_read[number], 1);
    }
    end();
}

static void writes_short(void)
{
    write_often("writes-short", 8, false);
}

static void writes_long(void)
{
    write_often("writes-long", 200, false);
}

static void writes_with_another_thread(void)
{
    write_often("writes-other", 8, true);
}

static void reads_short(void)
{
    read_often("reads-short", 8, false);
}

static void reads_long(void)
{
    read_often("reads-long", 200, false);
}

static void reads_with_another_thread(void)
{
    read_often("reads-other", 8, true);
}

static void *write_once(void *with)
{
    (void)with;
    EQUAL(send_as(OTHER), ESHM_SUCCESS);
    return NULL;
}

static void *read_once(void *with)
{
    note message;
    (void)with;
    EQUAL(eshm_read_ex(slave, &message, sizeof message, NULL, 0), ESHM_SUCCESS);
    mark(&message);
    return NULL;
}

/* One call in the handler per call under it, at each instruction in turn: at those of a half that is
 * nobody's own, where the turn is an ordinary lock, and of one that is this thread's. */
static void at_each_instruction(const char *what, bool reading, int calls_before)
{
    note message;
    begin(what, 8);
    is_reading = reading;
    is_shared = false;
    bool is_through = false;
    for (long at = 1; !is_through; at++) {
        pthread_t other;
        int code = 0;
        while (send_as(MAIN) == ESHM_SUCCESS && written[MAIN] < (uint32_t)at * 4 + 200) {
        }
        for (int call = 0; call < calls_before; call++) {
            if (reading) {
                CHECK(eshm_read(slave, &message, sizeof message) > 0);
                mark(&message);
                EQUAL(send_as(MAIN), ESHM_SUCCESS);
            } else {
                EQUAL(send_as(MAIN), ESHM_SUCCESS);
            }
        }
        if (calls_before == 0) {
            EQUAL(pthread_create(&other, NULL, reading ? read_once : write_once, NULL), 0);
            EQUAL(pthread_join(other, NULL), 0);
        }
        only_at = left_until = at;
        if (reading) {
            STEPPING(code = eshm_read_ex(slave, &message, sizeof message, NULL, 0));
            EQUAL(code, ESHM_SUCCESS);
            mark(&message);
        } else {
            STEPPING(code = send_as(MAIN));
            EQUAL(code, ESHM_SUCCESS);
        }
        is_through = left_until > 0;
        only_at = 0;
        if (!reading) {
            drain();
        }
    }
    while (reading && eshm_read_ex(slave, &message, sizeof message, NULL, 0) == ESHM_SUCCESS) {
        mark(&message);
    }
    for (uint32_t number = 0; reading && number < written[MAIN]; number++) {
        EQUAL(was_read[number], 1);
    }
    end();
}

static void at_each_instruction_of_a_write(void)
{
    at_each_instruction("each-write", false, 0);
    at_each_instruction("each-own-write", false, 100);
}

static void at_each_instruction_of_a_read(void)
{
    at_each_instruction("each-read", true, 0);
    at_each_instruction("each-own-read", true, 100);
}

/* What failed last is remembered whole, also when a handler fails inside of that. */
static void a_failure_inside_a_failure(void)
{
    begin("failures", 8);
    is_reading = false;
    for (int round = 0; round < 8; round++) {
        int code = 0;
        ESHMConfig nowhere = eshm_default_config("a.name.with.a.text?");
        nowhere.role = ESHM_ROLE_SLAVE;
        CHECK(eshm_init(&nowhere) == NULL);
        STEPPING(code = eshm_write(master, NULL, 1));
        EQUAL(code, ESHM_ERROR_INVALID_PARAM);
        CHECK(eshm_last_error_code() != ESHM_SUCCESS && eshm_last_error()[0] != '\0');
        while (send_as(MAIN) == ESHM_SUCCESS) {
        }
        STEPPING(code = eshm_write(master, "12345678", 8));
        EQUAL(code, ESHM_ERROR_BUFFER_FULL);
        drain();
    }
    end();
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"at_each_instruction_of_a_write", at_each_instruction_of_a_write},
        {"at_each_instruction_of_a_read", at_each_instruction_of_a_read},
        {"writes_short", writes_short},
        {"writes_long", writes_long},
        {"writes_with_another_thread", writes_with_another_thread},
        {"reads_short", reads_short},
        {"reads_long", reads_long},
        {"reads_with_another_thread", reads_with_another_thread},
        {"a_failure_inside_a_failure", a_failure_inside_a_failure},
    };
    return RUN(tests, argc, argv);
}

#else

int main(void)
{
    (void)send_as, (void)drain, (void)open_as, (void)steps, (void)nested, (void)served;
    (void)is_reading, (void)is_shared;
    fputs("*** NOT TESTED *** only x86-64 can stop at each instruction\n", stderr);
    return 0;
}

#endif
