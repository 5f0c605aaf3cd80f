/* peer.c - the C side of tests whose other side is Rust.
 *
 *     peer NAME master|slave send COUNT       sends COUNT numbered messages of many lengths
 *     peer NAME master|slave receive COUNT    receives them, and checks each
 *     peer NAME master|slave echo COUNT       sends back what it receives
 */
#include "eshm.h"
#include "check.h"

enum { LONGEST = 600 };

static size_t make(unsigned char *message, uint32_t number)
{
    size_t size = number % LONGEST;
    memset(message, (int)(number % 251), size);
    if (size >= sizeof number) {
        memcpy(message, &number, sizeof number);
    }
    return size;
}

static void send_all(ESHMHandle *bus, uint32_t count)
{
    unsigned char message[LONGEST];
    for (uint32_t number = 0; number < count; number++) {
        size_t size = make(message, number);
        EQUAL(eshm_write_ex(bus, message, size, NULL, 10000), ESHM_SUCCESS);
    }
    /* Stays until all is read, so that the reader never finds its peer gone. */
    ESHMStatsEx stats;
    stats.struct_size = sizeof stats;
    EVENTUALLY(eshm_get_stats_ex(bus, &stats) == ESHM_SUCCESS
               && stats.master_to_slave.backlog == 0 && stats.slave_to_master.backlog == 0);
}

static void receive_all(ESHMHandle *bus, uint32_t count)
{
    unsigned char message[LONGEST], got[LONGEST];
    for (uint32_t number = 0; number < count; number++) {
        size_t size = 0;
        EQUAL(eshm_read_ex(bus, got, sizeof got, &size, 10000), ESHM_SUCCESS);
        EQUAL(size, make(message, number));
        CHECK(memcmp(message, got, size) == 0);
    }
}

static void echo_all(ESHMHandle *bus, uint32_t count)
{
    unsigned char got[LONGEST];
    for (uint32_t number = 0; number < count; number++) {
        size_t size = 0;
        EQUAL(eshm_read_ex(bus, got, sizeof got, &size, 10000), ESHM_SUCCESS);
        EQUAL(eshm_write(bus, got, size), ESHM_SUCCESS);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        return 2;
    }
    alarm(50);
    ESHMHandle *bus = NULL;
    ESHMConfig config = eshm_default_config(argv[1]);
    config.role = strcmp(argv[2], "master") == 0 ? ESHM_ROLE_MASTER : ESHM_ROLE_SLAVE;
    EVENTUALLY((bus = eshm_init(&config)) != NULL);
    uint32_t count = (uint32_t)strtoul(argv[4], NULL, 10);
    if (strcmp(argv[3], "send") == 0) {
        send_all(bus, count);
    } else if (strcmp(argv[3], "receive") == 0) {
        receive_all(bus, count);
    } else {
        echo_all(bus, count);
    }
    EQUAL(eshm_destroy(bus), ESHM_SUCCESS);
    return 0;
}
