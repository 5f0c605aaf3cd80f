/* slave.c - prints the readings of master.c; start either first, and both as often as you like.
 *
 *     cc slave.c -leshm -o slave && ./slave
 */
#include <eshm.h>
#include <stdio.h>
#include <string.h>

typedef struct reading {
    double time, value;
} reading;

int main(void)
{
    ESHMOptions options = eshm_default_options("example");
    options.role = ESHM_ROLE_SLAVE;
    ESHMHandle *bus = eshm_open(&options); /* waits until a master has made it */
    if (bus == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
        return 1;
    }
    for (;;) {
        reading now;
        int code = eshm_read_exact(bus, &now, sizeof now, NULL, 1000);
        if (code == ESHM_SUCCESS) {
            printf("%.2f s: %g\n", now.time, now.value);
            eshm_write(bus, "thanks", strlen("thanks")); /* or not, if nobody reads them */
        } else if (code == ESHM_ERROR_TIMEOUT) {
            printf("silence\n"); /* goes on when a master comes back */
        } else {
            break;
        }
        fflush(stdout);
    }
    fprintf(stderr, "%s\n", eshm_last_error());
    eshm_destroy(bus);
    return 1;
}
