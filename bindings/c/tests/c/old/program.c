/* program.c - a program of the time of ESHM 1.0, compiled and linked without a look at us. */
#include "eshm.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NEED(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            return 1; \
        } \
    } while (0)

int main(int argc, char **argv)
{
    NEED(argc == 2);
    ESHMConfig config = eshm_default_config(argv[1]);
    config.stale_threshold_ms = 321;
    ESHMHandle *first = eshm_init(&config), *second = eshm_init(&config);
    NEED(first != NULL && second != NULL);
    enum ESHMRole role;
    NEED(eshm_get_role(first, &role) == 0 && role == ESHM_ROLE_MASTER);
    NEED(eshm_get_role(second, &role) == 0 && role == ESHM_ROLE_SLAVE);
    char buffer[16] = "";
    size_t size = 0;
    NEED(eshm_write(first, "hello", 5) == 0);
    NEED(eshm_read(second, buffer, sizeof buffer) == 5 && memcmp(buffer, "hello", 5) == 0);
    NEED(eshm_write(second, "", 0) == 0);
    NEED(eshm_read_ex(first, buffer, sizeof buffer, &size, 1000) == 0 && size == 0);
    NEED(eshm_read_ex(first, buffer, sizeof buffer, &size, 0) == -9);
    NEED(eshm_update_heartbeat(first) == 0);
    bool alive = false;
    for (int tries = 0; tries < 100000 && !alive; tries++) {
        NEED(eshm_check_remote_alive(first, &alive) == 0);
    }
    NEED(alive);
    /* What lies behind the struct is not touched. */
    struct {
        ESHMStats stats;
        unsigned char behind[64];
    } space;
    memset(&space, 0x5a, sizeof space);
    NEED(eshm_get_stats(first, &space.stats) == 0);
    NEED(space.stats.stale_threshold == 321);
    NEED(space.stats.m2s_write_count == 1 && space.stats.m2s_read_count == 1);
    NEED(space.stats.s2m_write_count == 1 && space.stats.s2m_read_count == 1);
    NEED(space.stats.master_pid == getpid() && space.stats.slave_alive);
    for (size_t at = 0; at < sizeof space.behind; at++) {
        NEED(space.behind[at] == 0x5a);
    }
    NEED(strcmp(eshm_error_string(-1), "Invalid parameter") == 0);
    NEED(eshm_destroy(second) == 0 && eshm_destroy(first) == 0);
    NEED(eshm_destroy(NULL) == -1 && eshm_update_heartbeat(NULL) == -14);
    return 0;
}
