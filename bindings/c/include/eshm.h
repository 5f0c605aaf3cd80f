/*
 * eshm.h - a message bus between two processes on one machine, over one shared-memory segment.
 *
 * One process is the master, the other the slave. Each direction is a queue of messages that loses
 * nothing: what a write accepted is read exactly once, in order, also when either process is killed
 * and started again. Link with -leshm.
 *
 *     ESHMConfig config = eshm_default_config("telemetry");
 *     config.role = ESHM_ROLE_MASTER;
 *     ESHMHandle *bus = eshm_init(&config);
 *     if (bus == NULL) { fprintf(stderr, "%s\n", eshm_last_error()); return 1; }
 *     eshm_write(bus, "hello", 5);
 *     eshm_destroy(bus);
 *
 * Threads: every function may be called from any thread. On one handle reading and writing never
 * wait for each other; two threads that write (or two that read) take turns. A handle may be
 * destroyed while other threads are in calls on it: those calls end first.
 *
 * Signal handlers: eshm_write(), eshm_read() and eshm_read_ex() may be called from one. If it
 * interrupted a call of its own thread on the same half of the same handle (reading or writing), it
 * gets ESHM_ERROR_MUTEX_LOCK at once; otherwise it is served, as patient as it says.
 * On a handle of eshm_open(), that is: one of eshm_init() may have to open its bus again, see
 * eshm_read(), and opening is not for signal handlers.
 *
 * Plug-ins: once loaded the library stays in the process; dlclose() and dlopen() again find it as it
 * was, with handles that are still open.
 *
 * Handles: a handle that is NULL, was destroyed, or is no handle at all is recognised, and gives
 * ESHM_ERROR_INVALID_PARAM (eshm_update_heartbeat() gives ESHM_ERROR_NOT_INITIALIZED). A handle
 * inherited through fork() belongs to the parent; in the child it gives
 * ESHM_ERROR_NOT_INITIALIZED, and destroying it there takes nothing away from the parent.
 *
 * C99 and later, C++11 and later. The interface of ESHM 1.0 comes first; a program that must not
 * see the rest defines ESHM_ONLY_1_0.
 */
#ifndef ESHM_H
#define ESHM_H

#include "eshm_data.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- ESHM 1.0 ---------------------------------------------------------------------------- */

/** One end of a bus, opened by this process. */
typedef struct ESHMHandle ESHMHandle;

/** The configuration to start from: role AUTO and the defaults named at ESHMConfig.
 * The library exports a function of this name too, for languages that do not read headers. */
static inline ESHMConfig eshm_default_config(const char *name)
{
    ESHMConfig config;
    config.shm_name = name;
    config.role = ESHM_ROLE_AUTO;
    config.disconnect_behavior = ESHM_DISCONNECT_ON_TIMEOUT;
    config.stale_threshold_ms = 100;
    config.reconnect_wait_ms = 5000;
    config.reconnect_retry_interval_ms = 100;
    config.max_reconnect_attempts = 50;
    config.auto_cleanup = true;
    config.use_threads = true;
    return config;
}

/**
 * Opens a bus.
 *
 * A master creates the segment with room for 8192 messages of up to 56 bytes per direction (or
 * over 100 of 4096 bytes). If one is there, the master takes it over with all that is unread,
 * whoever held it: that one's calls then give ESHM_ERROR_ROLE_MISMATCH. A slave needs a segment to
 * be there. AUTO is master if nobody is, else slave.
 *
 * Returns NULL on any failure; eshm_last_error() says which.
 */
ESHMHandle *eshm_init(const ESHMConfig *config);

/** Leaves the bus and frees the handle. With auto_cleanup the last to leave removes the file. */
int eshm_destroy(ESHMHandle *handle);

/**
 * Sends one message of up to ESHM_MAX_DATA_SIZE bytes; 0 bytes are a message too. Never blocks.
 *
 * 0: it is in the queue and will be read. ESHM_ERROR_BUFFER_FULL: it is not; try again when the
 * peer has read. ESHM_ERROR_BUFFER_TOO_SMALL: it is longer than the bus carries.
 */
int eshm_write(ESHMHandle *handle, const void *data, size_t size);

/**
 * Receives one message, waiting up to 1000 ms for it.
 *
 * Returns its length (0 is an empty message, an event), or a negative error: ESHM_ERROR_TIMEOUT;
 * ESHM_ERROR_MASTER_STALE when a slave's master is gone, as its configuration says;
 * ESHM_ERROR_BUFFER_TOO_SMALL, and then the message stays and can be read with a larger buffer.
 *
 * When a master is back, reading goes on by itself, also if the bus was removed meanwhile and made
 * anew: handles of eshm_init() look for it every reconnect_retry_interval_ms, in the role that they
 * got. Until there is one, writing gives ESHM_ERROR_BUFFER_FULL while reading gives
 * ESHM_ERROR_TIMEOUT, and then ESHM_ERROR_MASTER_STALE; if another process has the role in it,
 * ESHM_ERROR_ROLE_MISMATCH. What was unread in a bus that was removed is gone.
 */
int eshm_read(ESHMHandle *handle, void *buffer, size_t buffer_size);

/**
 * As eshm_read(), waiting up to timeout_ms. Returns 0 or a negative error.
 *
 * The length goes to *bytes_read (0 after an error) unless that is NULL. A timeout of 0 does not
 * wait: then ESHM_ERROR_NO_DATA says that no message is there.
 */
int eshm_read_ex(ESHMHandle *handle, void *buffer, size_t buffer_size, size_t *bytes_read,
                 uint32_t timeout_ms);

/** Beats once by hand; only of use with use_threads = false. NULL: ESHM_ERROR_NOT_INITIALIZED. */
int eshm_update_heartbeat(ESHMHandle *handle);

/** Sets *is_alive: true only while a peer is there whose heartbeat runs. */
int eshm_check_remote_alive(ESHMHandle *handle, bool *is_alive);

/** Fills in the statistics of both sides. */
int eshm_get_stats(ESHMHandle *handle, ESHMStats *stats);

/** Sets *role to ESHM_ROLE_MASTER or ESHM_ROLE_SLAVE, also if AUTO was asked for. */
int eshm_get_role(ESHMHandle *handle, enum ESHMRole *role);

/** A short text for what a call returned, never NULL. */
const char *eshm_error_string(int error_code);

/* ---- what came later --------------------------------------------------------------------- */

#ifndef ESHM_ONLY_1_0

/** The version of the library in use: major * 10000 + minor * 100 + patch. */
uint32_t eshm_version(void);

/**
 * The full text of this thread's last failure: which file, which process, which number.
 * Empty if there was none. The text stays valid until the next failing call of this thread.
 */
const char *eshm_last_error(void);

/** The code of this thread's last failure, also of those that returned NULL. */
int eshm_last_error_code(void);

/* Opening in full. */

/** A schema of name and version, for ESHMOptions.writes and .reads. The text is looked at by
 * eshm_open() and eshm_tap_open() only. */
static inline ESHMSchema eshm_schema(const char *name, uint32_t version)
{
    ESHMSchema schema;
    schema.name = name;
    schema.version = version;
    schema.reserved = 0;
    schema.size = 0;
    schema.layout = 0;
    return schema;
}

/** The options to start from: the defaults named at ESHMOptions. */
static inline ESHMOptions eshm_default_options(const char *name)
{
    const ESHMSchema unsaid = {NULL, 0, 0, 0, 0};
    ESHMOptions options;
    options.struct_size = sizeof(ESHMOptions);
    options.name = name;
    options.directory = NULL;
    options.role = ESHM_ROLE_AUTO;
    options.takeover = ESHM_TAKEOVER_NEVER;
    options.disconnect_behavior = ESHM_DISCONNECT_NEVER;
    options.wait = ESHM_WAIT_ADAPTIVE;
    options.master_to_slave.frames = 0;
    options.master_to_slave.frame_size = 0;
    options.master_to_slave.overflow = ESHM_OVERFLOW_REFUSE;
    options.slave_to_master = options.master_to_slave;
    options.heartbeat_interval_us = 1000;
    options.stale_threshold_ms = 100;
    options.reconnect_wait_ms = 5000;
    options.reconnect_retry_interval_ms = 100;
    options.max_reconnect_attempts = 50;
    options.mode = 0;
    options.auto_cleanup = true;
    options.use_threads = true;
    options.prefault = false;
    options.lock_memory = false;
    options.huge_pages = false;
    options.guard_sigbus = false;
    options.reserved[0] = 0;
    options.reserved[1] = 0;
    options.cleanup = ESHM_CLEANUP_WHEN_READ;
    options.open_timeout_ms = ESHM_WAIT_FOREVER;
    options.trusted_users = NULL;
    options.trusted_count = 0;
    options.writes = unsaid;
    options.reads = unsaid;
    return options;
}

/** As eshm_init(), in full. Here a slave waits until there is a bus, for as long as open_timeout_ms
 * says; a master leaves a living one alone unless told otherwise; the bus is removed when both sides
 * have left it and nothing is unread; and no call opens a bus again that was removed:
 * ESHM_ERROR_SHM_ATTACH says so, and the program opens it. */
ESHMHandle *eshm_open(const ESHMOptions *options);

/* Timeouts, ids, lengths. In all that follows a timeout of 0 does not wait: without room the call
 * gives ESHM_ERROR_BUFFER_FULL, without a message ESHM_ERROR_NO_DATA. A timeout that ran out gives
 * ESHM_ERROR_TIMEOUT. ESHM_WAIT_FOREVER never does. */

/**
 * Sends one message of up to eshm_max_message() bytes, waiting for room up to timeout_ms.
 * The message's id goes to *id unless that is NULL.
 */
int eshm_write_ex(ESHMHandle *handle, const void *data, size_t size, ESHMMessageId *id,
                  uint32_t timeout_ms);

/** As eshm_read_ex(), with the message's id and how many were lost before it. */
int eshm_read_message(ESHMHandle *handle, void *buffer, size_t buffer_size, ESHMMessage *message,
                      uint32_t timeout_ms);

/** Receives one message of exactly this size, a value for example, waiting up to timeout_ms. One of
 * another length gives ESHM_ERROR_BUFFER_TOO_SMALL and stays. message, unless NULL, is filled in as by
 * eshm_read_message(). */
int eshm_read_exact(ESHMHandle *handle, void *buffer, size_t size, ESHMMessage *message,
                    uint32_t timeout_ms);

/** The longest message that this handle can write. */
int eshm_max_message(ESHMHandle *handle, size_t *size);

/** The length of the message that is next; ESHM_ERROR_NO_DATA if there is none. */
int eshm_next_size(ESHMHandle *handle, size_t *size);

/** Passes over all waiting messages but the newest; *skipped (may be NULL) says how many. */
int eshm_skip_to_latest(ESHMHandle *handle, uint64_t *skipped);

/** The last message committed in the direction that this handle writes, by it or by an earlier
 * owner of its role: a producer that starts again need not send that twice. ESHM_ERROR_NO_DATA if
 * there is none. */
int eshm_last_committed(ESHMHandle *handle, ESHMMessageId *id);

/** The message that this handle read last; ESHM_ERROR_NO_DATA if there is none. */
int eshm_last_read(ESHMHandle *handle, ESHMMessageId *id);

/** How many messages this handle lost to overwriting, since it was opened. Never goes back. */
int eshm_lost(ESHMHandle *handle, uint64_t *lost);

/** The shape of one direction. */
int eshm_get_geometry(ESHMHandle *handle, enum ESHMDirection direction, ESHMGeometry *geometry);

/* Many at once. */

/**
 * Sends as many of the messages as fit now, in order; *written says how many.
 * ESHM_ERROR_BUFFER_FULL if not even one does. Never waits.
 */
int eshm_write_many(ESHMHandle *handle, const ESHMView *messages, size_t count, size_t *written);

/**
 * Sends the messages in order, waiting for room up to timeout_ms all in all; *written says how many it
 * sent: all, unless the time ran out or one of them was refused. An error only if it sent none.
 */
int eshm_write_many_ex(ESHMHandle *handle, const ESHMView *messages, size_t count, size_t *written,
                       uint32_t timeout_ms);

/**
 * Receives as many waiting messages as fit: copies them one behind the other into the buffer and
 * sets messages[0 .. *count] to where each lies. Waits up to timeout_ms for the first only.
 */
int eshm_read_many(ESHMHandle *handle, void *buffer, size_t buffer_size, ESHMView *messages,
                   size_t max_messages, size_t *count, uint32_t timeout_ms);

/* In place, without a copy. One claim and one peek may be open on a handle at a time. While a claim
 * is open all other writing on the handle finds no room; while a peek is open all other reading
 * finds no message. Both end with eshm_destroy(): the claim is aborted, the message kept. */

/** Sets *place to where the next message of up to size bytes may be written. */
int eshm_claim(ESHMHandle *handle, size_t size, void **place, uint32_t timeout_ms);

/** Sends the first size bytes of the open claim. */
int eshm_commit(ESHMHandle *handle, size_t size);

/** Gives the open claim up; nothing is sent. */
int eshm_abort(ESHMHandle *handle);

/**
 * Sets *view to the next message where it lies, and *message unless that is NULL. It stays there
 * until eshm_release(), also if the process dies before that: then its successor reads it again.
 */
int eshm_peek(ESHMHandle *handle, ESHMView *view, ESHMMessage *message, uint32_t timeout_ms);

/** Ends the open peek; the message is consumed. */
int eshm_release(ESHMHandle *handle);

/** Ends the open peek; the message is next again. */
int eshm_keep(ESHMHandle *handle);

/* The peer, the figures. */

/** The wishes that the system refused when the bus was opened, added up; see enum ESHMWish. */
uint32_t eshm_refused_wishes(ESHMHandle *handle);

/** Fills in what is known of the other side. */
int eshm_get_peer(ESHMHandle *handle, ESHMPeer *peer);

/** Waits until a living peer is there. */
int eshm_wait_for_peer(ESHMHandle *handle, uint32_t timeout_ms);

/** Fills in everything that is counted. */
int eshm_get_stats_ex(ESHMHandle *handle, ESHMStatsEx *stats);

/* Looking on, without taking part and without being noticed. */

/** A passive reader of one direction. */
typedef struct ESHMTap ESHMTap;

/**
 * Looks at one direction of the bus named by the options (of which only name, directory, wait and
 * reads count). Starts with what is unread, or else with what comes. NULL on failure.
 */
ESHMTap *eshm_tap_open(const ESHMOptions *options, enum ESHMDirection direction, bool from_unread);

/** Copies the next message that passes by; *message, unless NULL, says which and how many were
 * missed just before it. A message longer than the buffer gives ESHM_ERROR_BUFFER_TOO_SMALL. */
int eshm_tap_read(ESHMTap *tap, void *buffer, size_t buffer_size, ESHMMessage *message,
                  uint32_t timeout_ms);

/** Ends a tap. */
int eshm_tap_close(ESHMTap *tap);

/* The segments of this machine. */

/** What was found in a directory. */
typedef struct ESHMList ESHMList;

/** Lists the segments in a directory; NULL means /dev/shm. NULL on failure. */
ESHMList *eshm_list_open(const char *directory);

/** How many were found. */
size_t eshm_list_count(ESHMList *list);

/** Fills in the entry with this index. */
int eshm_list_get(ESHMList *list, size_t index, ESHMEntry *entry);

/** Frees a list, and the texts of its entries. */
int eshm_list_close(ESHMList *list);

/**
 * Removes a segment that nobody holds a role of, or with force any. directory: NULL for /dev/shm.
 * ESHM_ERROR_ROLE_MISMATCH if somebody holds one.
 */
int eshm_remove(const char *name, const char *directory, bool force);

#endif /* ESHM_ONLY_1_0 */

#ifdef __cplusplus
}
#endif

#endif /* ESHM_H */
