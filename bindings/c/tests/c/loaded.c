/* loaded.c - the library as a plug-in: loaded, used and let go of again and again by a program that is
 * not linked with it, as interpreters do. Nothing grows, and nothing of it runs into the void. */
#include "eshm.h"
#include "check.h"

#include <dlfcn.h>

static const char *library;

typedef struct calls {
    void *loaded;
    ESHMConfig (*default_config)(const char *);
    ESHMHandle *(*init)(const ESHMConfig *);
    int (*write)(ESHMHandle *, const void *, size_t);
    int (*read)(ESHMHandle *, void *, size_t);
    int (*destroy)(ESHMHandle *);
} calls;

static void find(void *loaded, const char *name, void *to)
{
    void *found = dlsym(loaded, name);
    if (found == NULL) {
        fail(__FILE__, __LINE__, name);
    }
    memcpy(to, &found, sizeof found);
}

static calls load(void)
{
    calls made;
    made.loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (made.loaded == NULL) {
        fail(__FILE__, __LINE__, dlerror());
    }
    find(made.loaded, "eshm_default_config", &made.default_config);
    find(made.loaded, "eshm_init", &made.init);
    find(made.loaded, "eshm_write", &made.write);
    find(made.loaded, "eshm_read", &made.read);
    find(made.loaded, "eshm_destroy", &made.destroy);
    return made;
}

/* Often enough for the quickest way, and with the background thread. */
static void use(const calls *with, const char *name)
{
    char buffer[8];
    ESHMConfig config = with->default_config(name);
    CHECK(strcmp(config.shm_name, name) == 0);
    config.role = ESHM_ROLE_MASTER;
    ESHMHandle *master = with->init(&config);
    config.role = ESHM_ROLE_SLAVE;
    ESHMHandle *slave = with->init(&config);
    CHECK(master != NULL && slave != NULL);
    for (int call = 0; call < 50; call++) {
        EQUAL(with->write(master, "message", 7), ESHM_SUCCESS);
        EQUAL(with->read(slave, buffer, sizeof buffer), 7);
    }
    EQUAL(with->destroy(slave), ESHM_SUCCESS);
    EQUAL(with->destroy(master), ESHM_SUCCESS);
}

/* What happened while nobody had the library loaded: a thread that used it ends, and one that did not
 * begins. */
static void *use_and_let_go(void *with)
{
    calls made = load();
    use(&made, (const char *)with);
    EQUAL(dlclose(made.loaded), 0);
    return NULL;
}

typedef struct sizes {
    int threads, descriptors, mappings;
} sizes;

static sizes measure(void)
{
    sizes now = {0, 0, 0};
    DIR *descriptors = opendir("/proc/self/fd");
    while (readdir(descriptors) != NULL) {
        now.descriptors++;
    }
    closedir(descriptors);
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    for (int byte; (byte = fgetc(maps)) != EOF;) {
        now.mappings += byte == '\n';
    }
    fclose(maps);
    now.threads = threads();
    return now;
}

static void loaded_again_and_again(void)
{
    const char *name = bus_name("loaded");
    sizes before = {0, 0, 0};
    for (int round = 0; round < 100; round++) {
        calls made = load();
        use(&made, name);
        EQUAL(dlclose(made.loaded), 0);
        if (round % 2 == 0) {
            pthread_t thread;
            EQUAL(pthread_create(&thread, NULL, use_and_let_go, (void *)(uintptr_t)name), 0);
            EQUAL(pthread_join(thread, NULL), 0);
        }
        /* The background thread ends by itself when the last handle is gone. */
        EVENTUALLY(threads() == 1);
        if (round == 10) {
            before = measure();
        }
    }
    sizes after = measure();
    EQUAL(after.threads, before.threads);
    EQUAL(after.descriptors, before.descriptors);
    /* A heap may still get one piece more; a hundred of anything would show. */
    CHECK(after.mappings <= before.mappings + 4);
    CHECK(!is_there(name));
}

typedef struct leaving {
    const char *name;
    ESHMHandle *master;
    calls made;
} leaving;

static void *open_and_let_go(void *with)
{
    leaving *self = (leaving *)with;
    self->made = load();
    ESHMConfig config = self->made.default_config(self->name);
    config.role = ESHM_ROLE_MASTER;
    self->master = self->made.init(&config);
    CHECK(self->master != NULL);
    EQUAL(dlclose(self->made.loaded), 0);
    return NULL;
}

/* Let go of while its background thread runs, and with a handle open, by a thread that ends: so that
 * nothing else of it keeps the library. */
static void let_go_of_while_in_use(void)
{
    char buffer[8];
    pthread_t thread;
    leaving gone;
    gone.name = bus_name("in-use");
    EQUAL(pthread_create(&thread, NULL, open_and_let_go, &gone), 0);
    EQUAL(pthread_join(thread, NULL), 0);
    poll(NULL, 0, 50);
    calls made = gone.made;
    ESHMHandle *master = gone.master;
    ESHMConfig config = made.default_config(gone.name);
    calls again = load();
    config.role = ESHM_ROLE_SLAVE;
    ESHMHandle *slave = again.init(&config);
    CHECK(slave != NULL);
    /* It is the same library, and the handle is still one. */
    EQUAL(again.write(master, "still", 5), ESHM_SUCCESS);
    EQUAL(again.read(slave, buffer, sizeof buffer), 5);
    EQUAL(again.destroy(slave), ESHM_SUCCESS);
    EQUAL(again.destroy(master), ESHM_SUCCESS);
    EQUAL(dlclose(again.loaded), 0);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"loaded_again_and_again", loaded_again_and_again},
        {"let_go_of_while_in_use", let_go_of_while_in_use},
    };
    library = getenv("ESHM_LIBRARY");
    CHECK(library != NULL);
    return RUN(tests, argc, argv);
}
