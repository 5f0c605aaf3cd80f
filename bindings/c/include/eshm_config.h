/*
 * eshm_config.h - the numbers a program may be compiled with.
 *
 * Brought in by eshm.h; there is no need to include it alone.
 */
#ifndef ESHM_CONFIG_H
#define ESHM_CONFIG_H

/** Longest message, in bytes, that eshm_write() takes. A program may size its buffers by it. */
#define ESHM_MAX_DATA_SIZE 4096

/** How often an endpoint shows that it is alive, in milliseconds. */
#define ESHM_HEARTBEAT_INTERVAL_MS 1

/** Version of this header. eshm_version() tells that of the library a program runs with. */
#define ESHM_VERSION_MAJOR 1
#define ESHM_VERSION_MINOR 0
#define ESHM_VERSION_PATCH 0

#endif /* ESHM_CONFIG_H */
