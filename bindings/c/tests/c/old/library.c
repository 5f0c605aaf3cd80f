/* library.c - stands for the library that an old program was linked with: the same symbols under
 * the same SONAME, and nothing behind them. */
#include "eshm.h"

#include <stdlib.h>

ESHMHandle *eshm_init(const ESHMConfig *config) { (void)config; abort(); }
int eshm_destroy(ESHMHandle *handle) { (void)handle; abort(); }
int eshm_write(ESHMHandle *handle, const void *data, size_t size)
{ (void)handle; (void)data; (void)size; abort(); }
int eshm_read(ESHMHandle *handle, void *buffer, size_t size)
{ (void)handle; (void)buffer; (void)size; abort(); }
int eshm_read_ex(ESHMHandle *handle, void *buffer, size_t size, size_t *read, uint32_t timeout)
{ (void)handle; (void)buffer; (void)size; (void)read; (void)timeout; abort(); }
int eshm_update_heartbeat(ESHMHandle *handle) { (void)handle; abort(); }
int eshm_check_remote_alive(ESHMHandle *handle, bool *alive) { (void)handle; (void)alive; abort(); }
int eshm_get_stats(ESHMHandle *handle, ESHMStats *stats) { (void)handle; (void)stats; abort(); }
int eshm_get_role(ESHMHandle *handle, enum ESHMRole *role) { (void)handle; (void)role; abort(); }
const char *eshm_error_string(int code) { (void)code; abort(); }
