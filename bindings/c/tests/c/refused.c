/* refused.c - a filter for system calls that is installed late, as sandboxes do: membarrier() worked
 * when a thread was given a half for itself, and is refused when another comes. */
#include "eshm.h"
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

typedef struct pair {
    ESHMHandle *master, *slave;
    int code;
    uint32_t next;
    volatile int begun, is_over;
} pair;

static ESHMHandle *open_as(const char *name, enum ESHMRole role)
{
    ESHMConfig config = eshm_default_config(name);
    config.role = role;
    ESHMHandle *handle = eshm_init(&config);
    CHECK(handle != NULL);
    return handle;
}

/** From here on all threads of this process are refused; false if the system has no such filters. */
static bool refuse_membarrier(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)) {
        fputs("*** NOT TESTED *** the system lets nobody install a filter\n", stderr);
        return false;
    }
    EQUAL(syscall(SYS_membarrier, 0, 0, 0), -1);
    return true;
}

static pair open_both(const char *name)
{
    pair both;
    char buffer[8];
    memset(&both, 0, sizeof both);
    both.master = open_as(name, ESHM_ROLE_MASTER);
    both.slave = open_as(name, ESHM_ROLE_SLAVE);
    /* Often enough that this thread has all four halves for itself. */
    for (int call = 0; call < 200; call++) {
        EQUAL(eshm_write(both.master, "m", 1), ESHM_SUCCESS);
        EQUAL(eshm_write(both.slave, "s", 1), ESHM_SUCCESS);
        EQUAL(eshm_read(both.slave, buffer, sizeof buffer), 1);
        EQUAL(eshm_read(both.master, buffer, sizeof buffer), 1);
    }
    return both;
}

static void *use(void *with)
{
    pair *both = (pair *)with;
    char buffer[8];
    for (int call = 0; call < 50; call++) {
        EQUAL(eshm_write(both->master, "m", 1), ESHM_SUCCESS);
        EQUAL(eshm_read(both->slave, buffer, sizeof buffer), 1);
        EQUAL(eshm_write(both->slave, "s", 1), ESHM_SUCCESS);
        EQUAL(eshm_read_ex(both->master, buffer, sizeof buffer, NULL, 0), ESHM_SUCCESS);
    }
    return NULL;
}

static void *destroy(void *with)
{
    pair *both = (pair *)with;
    EQUAL(eshm_destroy(both->slave), ESHM_SUCCESS);
    EQUAL(eshm_destroy(both->master), ESHM_SUCCESS);
    return NULL;
}

static void in_another_thread(void *(*body)(void *), pair *both)
{
    pthread_t thread;
    EQUAL(pthread_create(&thread, NULL, body, both), 0);
    EQUAL(pthread_join(thread, NULL), 0);
}

static void be_used(void *with)
{
    pair both = open_both((const char *)with);
    if (!refuse_membarrier()) {
        destroy(&both);
        return;
    }
    in_another_thread(use, &both);
    use(&both);
    in_another_thread(use, &both);
    destroy(&both);
    /* Later buses do without from the start. */
    both = open_both((const char *)with);
    in_another_thread(use, &both);
    in_another_thread(destroy, &both);
}

static void others_get_in(void)
{
    const char *name = bus_name("others");
    joined(spawn(be_used, (void *)(uintptr_t)name));
    CHECK(!is_there(name));
}

static void be_left(void *with)
{
    pair both = open_both((const char *)with);
    refuse_membarrier();
    in_another_thread(destroy, &both);
    CHECK(!is_there((const char *)with));
}

static void destroying_leaves(void)
{
    const char *name = bus_name("leaves");
    joined(spawn(be_left, (void *)(uintptr_t)name));
    CHECK(!is_there(name));
}

static void *write_numbers(void *with)
{
    pair *both = (pair *)with;
    uint32_t message[2] = {0, 0};
    while (!both->is_over) {
        if (eshm_write(both->master, message, sizeof message) == ESHM_SUCCESS) {
            both->begun = ++message[0] > 1000;
        }
    }
    both->next = message[0];
    return NULL;
}

/* The owner is in the middle of calls all the time when another thread comes for the first time. */
static void be_busy(void *with)
{
    pair both = open_both((const char *)with);
    pthread_t owner;
    uint32_t message[2], next[2] = {0, 0}, sent = 0;
    EQUAL(pthread_create(&owner, NULL, write_numbers, &both), 0);
    while (!both.begun) {
        if (eshm_read_ex(both.slave, message, sizeof message, NULL, 0) == ESHM_SUCCESS) {
            EQUAL(message[0], next[message[1]]++);
        }
    }
    refuse_membarrier();
    /* The owner is quick to fill the ring again: so each message is tried until there is room. */
    double before = seconds();
    for (uint32_t turn = 0; turn < 200000 || sent == 0; turn++) {
        CHECK(seconds() - before < 40);
        if (turn >= sent * 1000) {
            message[0] = sent;
            message[1] = 1;
            int code = eshm_write(both.master, message, sizeof message);
            CHECK(code == ESHM_SUCCESS || code == ESHM_ERROR_BUFFER_FULL);
            sent += code == ESHM_SUCCESS;
        }
        if (eshm_read_ex(both.slave, message, sizeof message, NULL, 0) == ESHM_SUCCESS) {
            CHECK(message[1] < 2);
            EQUAL(message[0], next[message[1]]++);
        }
    }
    both.is_over = 1;
    EQUAL(pthread_join(owner, NULL), 0);
    while (eshm_read_ex(both.slave, message, sizeof message, NULL, 0) == ESHM_SUCCESS) {
        EQUAL(message[0], next[message[1]]++);
    }
    EQUAL(next[0], both.next);
    EQUAL(next[1], sent);
    CHECK(sent > 0);
    destroy(&both);
}

static void a_busy_owner(void)
{
    for (int round = 0; round < 5; round++) {
        const char *name = bus_name("busy");
        joined(spawn(be_busy, (void *)(uintptr_t)name));
        CHECK(!is_there(name));
    }
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"others_get_in", others_get_in},
        {"destroying_leaves", destroying_leaves},
        {"a_busy_owner", a_busy_owner},
    };
    return RUN(tests, argc, argv);
}
