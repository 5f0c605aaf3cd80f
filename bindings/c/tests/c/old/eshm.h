/*
 * The interface of ESHM 1.0 in another hand, as a program of that time was compiled with it: no
 * more than the names, numbers and orders that are fixed. Nothing here comes from ../../include.
 */
#ifndef OLD_ESHM_H
#define OLD_ESHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ESHMRole { ESHM_ROLE_MASTER, ESHM_ROLE_SLAVE, ESHM_ROLE_AUTO };
enum ESHMDisconnectBehavior {
    ESHM_DISCONNECT_IMMEDIATELY,
    ESHM_DISCONNECT_ON_TIMEOUT,
    ESHM_DISCONNECT_NEVER
};

typedef struct {
    const char *shm_name;
    enum ESHMRole role;
    enum ESHMDisconnectBehavior disconnect_behavior;
    uint32_t stale_threshold_ms, reconnect_wait_ms, reconnect_retry_interval_ms,
        max_reconnect_attempts;
    bool auto_cleanup, use_threads;
} ESHMConfig;

typedef struct {
    uint64_t master_heartbeat, slave_heartbeat;
    pid_t master_pid, slave_pid;
    bool master_alive, slave_alive;
    uint32_t stale_threshold;
    uint64_t master_heartbeat_delta, slave_heartbeat_delta;
    uint64_t m2s_write_count, m2s_read_count, s2m_write_count, s2m_read_count;
} ESHMStats;

typedef struct ESHMHandle ESHMHandle;

ESHMHandle *eshm_init(const ESHMConfig *);
int eshm_destroy(ESHMHandle *);
int eshm_write(ESHMHandle *, const void *, size_t);
int eshm_read(ESHMHandle *, void *, size_t);
int eshm_read_ex(ESHMHandle *, void *, size_t, size_t *, uint32_t);
int eshm_update_heartbeat(ESHMHandle *);
int eshm_check_remote_alive(ESHMHandle *, bool *);
int eshm_get_stats(ESHMHandle *, ESHMStats *);
int eshm_get_role(ESHMHandle *, enum ESHMRole *);
const char *eshm_error_string(int);

static inline ESHMConfig eshm_default_config(const char *name)
{
    ESHMConfig config = {name, ESHM_ROLE_AUTO, ESHM_DISCONNECT_ON_TIMEOUT, 100, 5000, 100, 50,
                         true, true};
    return config;
}

#ifdef __cplusplus
}
#endif

#endif
