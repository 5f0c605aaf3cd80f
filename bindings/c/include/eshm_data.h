/*
 * eshm_data.h - the plain values of eshm: enums, configuration, statistics.
 *
 * Brought in by eshm.h; there is no need to include it alone. The first part is the interface of
 * ESHM 1.0: sizes, offsets and numbers are fixed for ever. The second part came later.
 */
#ifndef ESHM_DATA_H
#define ESHM_DATA_H

#include "eshm_config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- ESHM 1.0 ---------------------------------------------------------------------------- */

/** Which end of the bus a process is. */
enum ESHMRole {
    ESHM_ROLE_MASTER = 0, /**< creates the segment, or takes it over from whoever held it */
    ESHM_ROLE_SLAVE = 1,  /**< attaches to a segment that is there */
    ESHM_ROLE_AUTO = 2    /**< master if nobody is, else slave */
};

/** What a slave's reads give after its master died or left, once all it sent has been read. */
enum ESHMDisconnectBehavior {
    ESHM_DISCONNECT_IMMEDIATELY = 0, /**< ESHM_ERROR_MASTER_STALE at once */
    ESHM_DISCONNECT_ON_TIMEOUT = 1,  /**< ESHM_ERROR_TIMEOUT up to the limits, then MASTER_STALE */
    ESHM_DISCONNECT_NEVER = 2        /**< ESHM_ERROR_TIMEOUT for as long as it takes */
};

/** What a call returns when it fails; all are negative. */
enum ESHMError {
    ESHM_SUCCESS = 0,
    ESHM_ERROR_SUCCESS = 0,           /**< the same, spelt like the others */
    ESHM_ERROR_INVALID_PARAM = -1,    /**< a pointer is NULL, or the handle is no open handle */
    ESHM_ERROR_SHM_CREATE = -2,       /**< the segment cannot be made */
    ESHM_ERROR_SHM_ATTACH = -3,       /**< the segment cannot be used, or not any more */
    ESHM_ERROR_SHM_DETACH = -4,       /**< not given by this library */
    ESHM_ERROR_SHM_DELETE = -5,       /**< the segment cannot be removed */
    ESHM_ERROR_MUTEX_INIT = -6,       /**< not given by this library */
    ESHM_ERROR_MUTEX_LOCK = -7,       /**< called from a signal handler inside the same call */
    ESHM_ERROR_MUTEX_UNLOCK = -8,     /**< not given by this library */
    ESHM_ERROR_NO_DATA = -9,          /**< no message is waiting */
    ESHM_ERROR_TIMEOUT = -10,         /**< nothing happened within the time allowed */
    ESHM_ERROR_MASTER_STALE = -11,    /**< the peer is gone, and all it sent has been read */
    ESHM_ERROR_BUFFER_FULL = -12,     /**< no room now; nothing was written; try again */
    ESHM_ERROR_BUFFER_TOO_SMALL = -13,/**< the message is longer than the place meant for it */
    ESHM_ERROR_NOT_INITIALIZED = -14, /**< the handle cannot be used in this process */
    ESHM_ERROR_ROLE_MISMATCH = -15    /**< another process holds this handle's role now */
};

/** How to open a bus. Start from eshm_default_config(). */
typedef struct ESHMConfig {
    const char *shm_name;           /**< name of the bus; the file is /dev/shm/eshm_NAME */
    enum ESHMRole role;             /**< default: ESHM_ROLE_AUTO */
    enum ESHMDisconnectBehavior disconnect_behavior; /**< default: ESHM_DISCONNECT_ON_TIMEOUT */
    uint32_t stale_threshold_ms;    /**< a heartbeat that stands still this long is hung: 100 */
    uint32_t reconnect_wait_ms;     /**< how long a master that is gone is looked for: 5000; 0: for ever */
    uint32_t reconnect_retry_interval_ms; /**< how often it is looked for: 100 */
    uint32_t max_reconnect_attempts;/**< how many times it is looked for: 50; 0: no limit */
    bool auto_cleanup;              /**< the last to leave removes the file, if either side
                                         wanted that: true */
    bool use_threads;               /**< one background thread of the process keeps the heartbeats:
                                         true; without it the calls do */
} ESHMConfig;

/** What eshm_get_stats() fills in. */
typedef struct ESHMStats {
    uint64_t master_heartbeat;      /**< beats of the master since the segment was made */
    uint64_t slave_heartbeat;       /**< beats of the slave */
    pid_t master_pid;               /**< the master's process, for people to read; 0: none yet */
    pid_t slave_pid;                /**< the slave's */
    bool master_alive;              /**< a master is there and its heartbeat runs */
    bool slave_alive;               /**< a slave is there and its heartbeat runs */
    uint32_t stale_threshold;       /**< of this handle, in milliseconds */
    uint64_t master_heartbeat_delta;/**< beats since this handle last asked, or was opened */
    uint64_t slave_heartbeat_delta; /**< the same for the slave */
    uint64_t m2s_write_count;       /**< messages written by the master */
    uint64_t m2s_read_count;        /**< of these, read by the slave */
    uint64_t s2m_write_count;       /**< messages written by the slave */
    uint64_t s2m_read_count;        /**< of these, read by the master */
} ESHMStats;

/* ---- what came later --------------------------------------------------------------------- */

#ifndef ESHM_ONLY_1_0

/** A timeout that never runs out. */
#define ESHM_WAIT_FOREVER UINT32_MAX

/** One of the two directions of a bus. */
enum ESHMDirection {
    ESHM_MASTER_TO_SLAVE = 0,
    ESHM_SLAVE_TO_MASTER = 1
};

/** What happens when a direction is full. */
enum ESHMOverflow {
    ESHM_OVERFLOW_REFUSE = 0,   /**< the writer is refused or waits; nothing is ever lost */
    ESHM_OVERFLOW_OVERWRITE = 1,/**< the oldest messages make room; the reader learns how many */
    ESHM_OVERFLOW_AS_FOUND = 2  /**< only to open: as the bus has it; when creating, REFUSE */
};

/** What to do with the owner of the role asked for. */
enum ESHMTakeover {
    ESHM_TAKEOVER_NEVER = 0,    /**< leave a living owner alone: opening fails and names it */
    ESHM_TAKEOVER_HUNG = 1,     /**< replace it if its heartbeat stands still */
    ESHM_TAKEOVER_ALWAYS = 2    /**< replace it whatever its state */
};

/**
 * When the bus is removed, once both sides have left it by eshm_destroy(). A side that died has not
 * left: then the bus stays until its role was held again and left. If the wishes of the two sides
 * differ, the more careful one counts.
 */
enum ESHMCleanup {
    ESHM_CLEANUP_WHEN_READ = 0, /**< if nothing is unread; otherwise it stays, with what is unread */
    ESHM_CLEANUP_ALWAYS = 1,    /**< also with messages that nobody has read */
    ESHM_CLEANUP_NEVER = 2      /**< only by eshm_remove() or by hand */
};

/** Wishes about memory; the bus works without them. */
enum ESHMWish {
    ESHM_WISH_PREFAULT = 1,
    ESHM_WISH_LOCK_MEMORY = 2,
    ESHM_WISH_HUGE_PAGES = 4
};

/** How a call waits. */
enum ESHMWait {
    ESHM_WAIT_ADAPTIVE = 0,     /**< spin for a short while, then sleep */
    ESHM_WAIT_SPIN = 1,         /**< never sleep: for a thread that has a core of its own */
    ESHM_WAIT_PARK = 2          /**< sleep at once */
};

/** What is known of a role. */
enum ESHMPeerState {
    ESHM_PEER_ABSENT = 0,       /**< nobody has held it yet */
    ESHM_PEER_ALIVE = 1,
    ESHM_PEER_HUNG = 2,         /**< the process is there, its heartbeat stands still */
    ESHM_PEER_DEAD = 3,         /**< the process ended without leaving */
    ESHM_PEER_LEFT = 4          /**< it left by eshm_destroy() */
};

/** What eshm_list_open() found under a name. */
enum ESHMEntryKind {
    ESHM_ENTRY_BUS = 0,
    ESHM_ENTRY_LEFTOVER = 1,    /**< of a process that died while it made a segment */
    ESHM_ENTRY_FOREIGN = 2,     /**< not made by this library */
    ESHM_ENTRY_UNREADABLE = 3   /**< could not be looked at */
};

/** The state of a whole segment. */
enum ESHMSegmentState {
    ESHM_SEGMENT_LIVE = 0,
    ESHM_SEGMENT_SEALED = 1,    /**< being replaced by a successor */
    ESHM_SEGMENT_RETIRED = 2    /**< replaced, or removed */
};

/** Which message: the how-many-th owner of the writing role sent it, and its number. */
typedef struct ESHMMessageId {
    uint64_t epoch;             /**< 1 for the first owner of the role */
    uint64_t number;            /**< counts the messages of a direction from 0, over restarts */
} ESHMMessageId;

/** Bytes that somebody else owns. */
typedef struct ESHMView {
    const void *data;
    size_t size;
} ESHMView;

/** The shape of one direction. All zero: 64 bytes, 8192 frames when creating, else as found. With
 * ESHM_OVERFLOW_AS_FOUND each 0 for itself means that. */
typedef struct ESHMGeometry {
    uint64_t frames;            /**< frames of the ring: a power of two; 0: 8192 */
    uint32_t frame_size;        /**< bytes per frame: 16, 32, a multiple of 64; 0: 64 */
    enum ESHMOverflow overflow;
} ESHMGeometry;

/** What the messages of one direction are: what two programs agreed on. All zero: not said. */
typedef struct ESHMSchema {
    const char *name;           /**< 1 to 64 bytes of UTF-8; NULL: not said */
    uint32_t version;           /**< of what the messages are */
    uint32_t reserved;          /**< must be 0 */
    uint64_t size;              /**< bytes of every message; 0: not said */
    uint64_t layout;            /**< a number for how the fields lie, as `eshm stat` shows it of a bus
                                     whose other side derives it; 0: not said */
} ESHMSchema;

/*
 * The structs below begin with their own size, so that they can grow: a program sets struct_size
 * to sizeof the struct it was compiled with (the eshm_default_...() and the C++ header do), and the
 * library neither reads nor writes beyond it. Nested structs and those above never grow.
 */

/** How to open a bus, in full. Start from eshm_default_options(), whose defaults are those of eshm
 * for Rust and C++, not those of ESHMConfig. What a program compiled with a shorter struct does not
 * know is as it was then: it does not wait to open, and trusts nobody else. */
typedef struct ESHMOptions {
    size_t struct_size;         /**< sizeof(ESHMOptions) */
    const char *name;           /**< name of the bus */
    const char *directory;      /**< where the file is; NULL: /dev/shm */
    enum ESHMRole role;         /**< default: ESHM_ROLE_AUTO */
    enum ESHMTakeover takeover; /**< default: ESHM_TAKEOVER_NEVER */
    enum ESHMDisconnectBehavior disconnect_behavior; /**< what reading gives when the peer is gone,
                                     here for either role; default: ESHM_DISCONNECT_NEVER */
    enum ESHMWait wait;         /**< default: ESHM_WAIT_ADAPTIVE */
    ESHMGeometry master_to_slave; /**< a wish when creating, a condition when attaching */
    ESHMGeometry slave_to_master; /**< likewise */
    uint32_t heartbeat_interval_us; /**< default: 1000 */
    uint32_t stale_threshold_ms;/**< default: 100 */
    uint32_t reconnect_wait_ms; /**< for ON_TIMEOUT; default: 5000; 0: for ever */
    uint32_t reconnect_retry_interval_ms; /**< for ON_TIMEOUT; default: 100 */
    uint32_t max_reconnect_attempts; /**< for ON_TIMEOUT; default: 50; 0: no limit */
    uint32_t mode;              /**< permission bits of a file that is made, and the most that one found
                                     may have; default: 0, which is 0600 when creating (this user
                                     only), else as found */
    bool auto_cleanup;          /**< default: true; false is the same as ESHM_CLEANUP_NEVER */
    bool use_threads;           /**< default: true */
    bool prefault;              /**< touch every page when opening; default: false */
    bool lock_memory;           /**< lock the segment into memory; default: false */
    bool huge_pages;            /**< ask for huge pages; default: false */
    bool guard_sigbus;          /**< survive a peer that truncates the file; default: false */
    uint8_t reserved[2];        /**< must be 0 */
    enum ESHMCleanup cleanup;   /**< default: ESHM_CLEANUP_WHEN_READ; of no meaning without auto_cleanup */
    uint32_t open_timeout_ms;   /**< how long a slave waits for a master to make the bus; 0: not at all;
                                     default: ESHM_WAIT_FOREVER */
    const uint32_t *trusted_users; /**< users whose files may be opened too, besides those of this
                                     user and of root; default: NULL */
    size_t trusted_count;       /**< how many they are; default: 0 */
    ESHMSchema writes;          /**< what this side writes. A bus that is made carries it; one that
                                     carries another, or none, is refused: ESHM_ERROR_SHM_ATTACH, and
                                     eshm_last_error() names both. Default: not said, and whatever
                                     the bus carries is right */
    ESHMSchema reads;           /**< what this side reads; likewise */
} ESHMOptions;

/** About one message. */
typedef struct ESHMMessage {
    size_t struct_size;         /**< sizeof(ESHMMessage) */
    size_t size;                /**< its length; set by BUFFER_TOO_SMALL too */
    ESHMMessageId id;
    uint64_t lost;              /**< messages overwritten since this was last told */
} ESHMMessage;

/** About one role. */
typedef struct ESHMRoleState {
    enum ESHMPeerState state;
    uint32_t pid;               /**< for people to read; 0: none yet */
    uint64_t epoch;             /**< how many owners the role has had */
    uint64_t beats;             /**< its heartbeat */
    uint64_t progress;          /**< counts its calls: a process that hangs in its own code beats on,
                                     but makes no progress */
    uint64_t silent_us;         /**< for ESHM_PEER_HUNG: since when, in microseconds */
} ESHMRoleState;

/** What eshm_get_peer() fills in. */
typedef struct ESHMPeer {
    size_t struct_size;         /**< sizeof(ESHMPeer) */
    ESHMRoleState peer;
} ESHMPeer;

/** About one direction, since the segment was made. */
typedef struct ESHMRingStats {
    uint64_t written;           /**< messages written */
    uint64_t read;              /**< messages read */
    uint64_t bytes;             /**< bytes written */
    uint64_t backlog;           /**< messages unread */
    uint64_t backlog_frames;    /**< frames they take */
    uint64_t frames;            /**< frames of the ring */
    uint64_t high_water;        /**< most frames taken at once */
    uint64_t times_full;        /**< how often the writer met a full ring */
    uint64_t lost;              /**< messages overwritten unread */
    uint64_t reader_parks;      /**< how often the reader went to sleep */
    uint64_t reader_wakes;      /**< how often the writer woke it */
    uint64_t writer_parks;      /**< how often the writer went to sleep */
    uint64_t writer_wakes;      /**< how often the reader woke it */
} ESHMRingStats;

/** What eshm_get_stats_ex() fills in. */
typedef struct ESHMStatsEx {
    size_t struct_size;         /**< sizeof(ESHMStatsEx) */
    ESHMRoleState master;
    ESHMRoleState slave;
    ESHMRingStats master_to_slave;
    ESHMRingStats slave_to_master;
} ESHMStatsEx;

/** One file that eshm_list_open() found. The texts live until eshm_list_close(). */
typedef struct ESHMEntry {
    size_t struct_size;         /**< sizeof(ESHMEntry) */
    const char *name;           /**< of the bus, as far as it is known */
    const char *path;           /**< of the file */
    const char *why;            /**< why it is no bus; empty for ESHM_ENTRY_BUS */
    enum ESHMEntryKind kind;    /**< what follows is 0 for all but ESHM_ENTRY_BUS */
    enum ESHMSegmentState state;
    uint64_t size;              /**< bytes of the file */
    uint32_t mode;              /**< permission bits */
    uint32_t uid;               /**< owner */
    int64_t created_ns;         /**< nanoseconds since 1970 */
    uint64_t generation;        /**< how often the segment was replaced */
    ESHMGeometry master_to_slave;
    ESHMGeometry slave_to_master;
    ESHMRoleState master;
    ESHMRoleState slave;
    ESHMRingStats master_to_slave_stats;
    ESHMRingStats slave_to_master_stats;
    ESHMSchema master_to_slave_schema; /**< its name is NULL if the bus carries none */
    ESHMSchema slave_to_master_schema;
} ESHMEntry;

#endif /* ESHM_ONLY_1_0 */

#endif /* ESHM_DATA_H */
