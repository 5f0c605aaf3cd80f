/* master.c - sends a reading every 10 ms, and prints what the slave sends back.
 *
 *     cc master.c -leshm -o master && ./master
 */
#include <eshm.h>
#include <stdio.h>
#include <time.h>

typedef struct reading {
    double time, value;
} reading;

int main(void)
{
    ESHMConfig config = eshm_default_config("example");
    config.role = ESHM_ROLE_MASTER;
    ESHMHandle *bus = eshm_init(&config);
    if (bus == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
        return 1;
    }
    for (int at = 0; at < 1000; at++) {
        reading now = {at * 0.01, (double)(at % 100)};
        if (eshm_write(bus, &now, sizeof now) == ESHM_ERROR_BUFFER_FULL) {
            printf("nobody has read for a while\n");
        }
        char answer[64];
        size_t size;
        if (eshm_read_ex(bus, answer, sizeof answer, &size, 10) == ESHM_SUCCESS) {
            printf("the slave says: %.*s\n", (int)size, answer);
        }
    }
    return eshm_destroy(bus);
}
