/* slave.c - prints the readings of master.c; start and stop either as often as you like.
 *
 *     cc slave.c -leshm -o slave && ./slave
 */
#include <eshm.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

typedef struct reading {
    double time, value;
} reading;

int main(void)
{
    ESHMConfig config = eshm_default_config("example");
    config.role = ESHM_ROLE_SLAVE;
    ESHMHandle *bus;
    while ((bus = eshm_init(&config)) == NULL) {
        poll(NULL, 0, 100); /* no master yet */
    }
    for (;;) {
        reading now;
        int size = eshm_read(bus, &now, sizeof now);
        if (size == (int)sizeof now) {
            printf("%.2f s: %g\n", now.time, now.value);
            eshm_write(bus, "thanks", strlen("thanks"));
        } else if (size == ESHM_ERROR_MASTER_STALE) {
            printf("the master is gone\n");
            break;
        } else if (size != ESHM_ERROR_TIMEOUT) {
            printf("%s\n", eshm_last_error());
            break;
        }
    }
    return eshm_destroy(bus);
}
