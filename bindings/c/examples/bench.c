/* bench.c - what the calls of eshm.h cost, between two processes on two cores.
 *
 *     cc -O2 bench.c -leshm -o bench && ./bench [MESSAGES] [ROUND-TRIPS]
 *
 * Prints the time of a stream of 48-byte messages at full speed, each checked on arrival, and the
 * percentiles of a round trip with blocking reads. benches/calls.rs sets this against the Rust
 * interface in one run.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <eshm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct note {
    uint64_t number, rest[5];
} note;

static void check(int good)
{
    if (!good) {
        fprintf(stderr, "%s\n", eshm_last_error());
        exit(1);
    }
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void pin(int core)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_setaffinity(0, sizeof cores, &cores); /* with one core it changes nothing */
}

static ESHMHandle *open_as(enum ESHMRole role)
{
    static char name[64];
    snprintf(name, sizeof name, "bench-c-%d", role == ESHM_ROLE_MASTER ? getpid() : getppid());
    ESHMConfig config = eshm_default_config(name);
    ESHMHandle *bus;
    config.role = role;
    while ((bus = eshm_init(&config)) == NULL && role == ESHM_ROLE_SLAVE) {
        sched_yield();
    }
    check(bus != NULL);
    return bus;
}

/* Receives the stream, says that it has all, then echoes. */
static void be_slave(uint64_t messages, uint64_t trips)
{
    pin(1);
    ESHMHandle *bus = open_as(ESHM_ROLE_SLAVE);
    note message = {0, {0}};
    for (uint64_t number = 0; number < messages; number++) {
        size_t size = 0;
        check(eshm_read_ex(bus, &message, sizeof message, &size, 10000) == ESHM_SUCCESS);
        check(size == sizeof message && message.number == number);
    }
    check(eshm_write(bus, "all", 3) == ESHM_SUCCESS);
    for (uint64_t trip = 0; trip < trips; trip++) {
        check(eshm_read(bus, &message, sizeof message) == (int)sizeof message);
        check(eshm_write(bus, &message, sizeof message) == ESHM_SUCCESS);
    }
    eshm_destroy(bus);
    exit(0);
}

static void stream(ESHMHandle *bus, uint64_t messages)
{
    note message = {0, {0}};
    char all[8];
    double start = now_ns();
    for (message.number = 0; message.number < messages; message.number++) {
        int code;
        while ((code = eshm_write(bus, &message, sizeof message)) == ESHM_ERROR_BUFFER_FULL) {
        }
        check(code == ESHM_SUCCESS);
    }
    check(eshm_read_ex(bus, all, sizeof all, NULL, 10000) == ESHM_SUCCESS);
    double took = now_ns() - start;
    printf("stream      %llu messages of %zu bytes, all arrived in order: %.1f M/s\n",
           (unsigned long long)messages, sizeof message, (double)messages * 1e3 / took);
}

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void round_trips(ESHMHandle *bus, uint64_t trips)
{
    double *took = (double *)malloc(trips * sizeof *took);
    note message = {0, {0}};
    check(took != NULL);
    for (uint64_t trip = 0; trip < trips; trip++) {
        double start = now_ns();
        check(eshm_write(bus, &message, sizeof message) == ESHM_SUCCESS);
        check(eshm_read(bus, &message, sizeof message) == (int)sizeof message);
        took[trip] = now_ns() - start;
    }
    qsort(took, trips, sizeof *took, by_size);
    printf("round trip  p50 %.0f ns, p99 %.0f ns, p99.9 %.0f ns\n", took[trips / 2],
           took[trips * 99 / 100], took[trips * 999 / 1000]);
    free(took);
}

int main(int argc, char **argv)
{
    uint64_t messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 5000000;
    uint64_t trips = argc > 2 ? strtoull(argv[2], NULL, 10) : 200000;
    if (messages == 0 || trips == 0) {
        return 2;
    }
    ESHMHandle *bus = NULL;
    pid_t child = fork();
    if (child == 0) {
        be_slave(messages, trips);
    }
    pin(0);
    bus = open_as(ESHM_ROLE_MASTER);
    check(eshm_wait_for_peer(bus, 10000) == ESHM_SUCCESS);
    stream(bus, messages);
    round_trips(bus, trips);
    int status = 1;
    waitpid(child, &status, 0);
    eshm_destroy(bus);
    return status != 0;
}
