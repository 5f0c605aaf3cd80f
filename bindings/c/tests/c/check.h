/* check.h - what the test programs share: checks that say where they failed, and waiting for
 * something to become true instead of hoping that it is by then. Compile with -D_GNU_SOURCE. */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fail(__FILE__, __LINE__, #condition); \
        } \
    } while (0)

#define EQUAL(left, right) \
    same(__FILE__, __LINE__, #left " == " #right, (long long)(left), (long long)(right))

/** Waits until the condition holds; 20 s is never. */
#define EVENTUALLY(condition) \
    do { \
        double end_ = seconds() + 20; \
        while (!(condition)) { \
            if (seconds() > end_) { \
                fail(__FILE__, __LINE__, "eventually " #condition); \
            } \
            poll(NULL, 0, 1); \
        } \
    } while (0)

static const char *base_name;

static void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    _exit(1);
}

static inline void same(const char *file, int line, const char *what, long long left,
                        long long right)
{
    if (left != right) {
        fprintf(stderr, "%s:%d: %s: %lld, %lld\n", file, line, what, left, right);
        _exit(1);
    }
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/** A name of a bus that no other test has. The text lives until eight others were asked for. */
static inline const char *bus_name(const char *what)
{
    static char names[8][256];
    static unsigned next;
    char *name = names[next++ % 8];
    snprintf(name, sizeof names[0], "%.180s.%s", base_name, what);
    return name;
}

static inline const char *bus_file(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "/dev/shm/eshm_%s", name);
    return path;
}

static inline bool is_there(const char *name)
{
    struct stat facts;
    return stat(bus_file(name), &facts) == 0;
}

/** How many threads this process has. */
static inline int threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    while ((task = readdir(tasks)) != NULL) {
        count += task->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/** How often a process is killed, unless ESHM_LIVES says how often. */
static inline int lives(int usual)
{
    const char *wanted = getenv("ESHM_LIVES");
    return wanted ? atoi(wanted) : usual;
}

/** A process that runs `body` and whose end tells how it went. */
static inline pid_t spawn(void (*body)(void *), void *with)
{
    pid_t child = fork();
    if (child == 0) {
        body(with);
        _exit(0);
    }
    CHECK(child > 0);
    return child;
}

static inline void joined(pid_t child)
{
    int status = 0;
    EQUAL(waitpid(child, &status, 0), child);
    EQUAL(status, 0);
}

static inline void killed(pid_t child)
{
    int status = 0;
    EQUAL(kill(child, SIGKILL), 0);
    EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/** A line between two processes: one tells, the other waits to be told. */
typedef struct line {
    int ends[2];
} line;

static inline line line_new(void)
{
    line made;
    CHECK(pipe(made.ends) == 0);
    return made;
}

static inline void line_tell(line *to)
{
    CHECK(write(to->ends[1], "x", 1) == 1);
}

static inline void line_wait(line *from)
{
    char byte;
    CHECK(read(from->ends[0], &byte, 1) == 1);
}

/** Runs the tests whose names come behind the base name, or all. */
typedef struct test {
    const char *name;
    void (*body)(void);
} test;

static inline int run(const test *tests, int count, int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s UNIQUE-NAME [TEST]...\n", argv[0]);
        return 2;
    }
    base_name = argv[1];
    signal(SIGPIPE, SIG_IGN);
    alarm(getenv("ESHM_LIVES") ? 0 : 50);
    for (int index = 0; index < count; index++) {
        int wanted = argc == 2;
        for (int at = 2; at < argc; at++) {
            wanted |= strcmp(argv[at], tests[index].name) == 0;
        }
        if (wanted) {
            printf("%s\n", tests[index].name);
            fflush(stdout);
            tests[index].body();
        }
    }
    return 0;
}

#define RUN(tests, argc, argv) run(tests, (int)(sizeof tests / sizeof *tests), argc, argv)

#endif
