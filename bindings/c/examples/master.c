/* master.c - sends readings, and prints what the slave sends back.
 *
 *     cc master.c -leshm -o master && ./master
 */
#include <eshm.h>
#include <stdio.h>

typedef struct reading {
    double time, value;
} reading;

int main(void)
{
    ESHMOptions options = eshm_default_options("example");
    options.role = ESHM_ROLE_MASTER;
    ESHMHandle *bus = eshm_open(&options);
    if (bus == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
        return 1;
    }
    for (int at = 0;; at++) {
        reading now = {at * 0.01, (double)(at % 100)};
        /* Waits if the slave is behind, or not there yet. */
        if (eshm_write_ex(bus, &now, sizeof now, NULL, ESHM_WAIT_FOREVER) != ESHM_SUCCESS) {
            break;
        }
        char answer[64];
        size_t size;
        if (eshm_read_ex(bus, answer, sizeof answer, &size, 10) == ESHM_SUCCESS) {
            printf("the slave says: %.*s\n", (int)size, answer);
            fflush(stdout);
        }
    }
    fprintf(stderr, "%s\n", eshm_last_error());
    eshm_destroy(bus);
    return 1;
}
