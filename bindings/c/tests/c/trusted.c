/* trusted.c - files of other users are opened only where an option names the owner. For root. */
#include "eshm.h"
#include "check.h"

enum { SOMEBODY = 4242, ANOTHER = 4243 };

static void only_named_owners_are_trusted(void)
{
    const char *name = bus_name("trusted");
    const uint32_t users[] = {ANOTHER, SOMEBODY};
    ESHMOptions options = eshm_default_options(name);
    options.role = ESHM_ROLE_MASTER;
    ESHMHandle *master = eshm_open(&options);
    CHECK(master != NULL);
    EQUAL(chown(bus_file(name), SOMEBODY, SOMEBODY), 0);
    options.role = ESHM_ROLE_SLAVE;
    CHECK(eshm_open(&options) == NULL);
    EQUAL(eshm_last_error_code(), ESHM_ERROR_SHM_ATTACH);
    CHECK(strstr(eshm_last_error(), "user 4242") != NULL);
    options.trusted_users = users;
    options.trusted_count = 1;
    CHECK(eshm_open(&options) == NULL);
    options.trusted_count = 2;
    ESHMHandle *slave = eshm_open(&options);
    CHECK(slave != NULL);
    EQUAL(eshm_write(master, "x", 1), ESHM_SUCCESS);
    char buffer[8];
    EQUAL(eshm_read(slave, buffer, sizeof buffer), 1);
    /* The one that trusts the owner is the last to leave, and so can remove the file. */
    EQUAL(eshm_destroy(master), ESHM_SUCCESS);
    EQUAL(eshm_destroy(slave), ESHM_SUCCESS);
    CHECK(!is_there(name));
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"only_named_owners_are_trusted", only_named_owners_are_trusted},
    };
    return RUN(tests, argc, argv);
}
