/* zero_copy.c - both ends of a bus that carries images, without a copy on either side.
 *
 *     cc zero_copy.c -leshm -o zero_copy && ./zero_copy
 */
#include <eshm.h>
#include <stdio.h>
#include <string.h>

enum { IMAGE = 640 * 480 };

static int give_up(void)
{
    fprintf(stderr, "%s\n", eshm_last_error());
    return 1;
}

int main(int argc, char **argv)
{
    ESHMOptions options = eshm_default_options(argc > 1 ? argv[1] : "images");
    options.master_to_slave.frames = 1 << 14; /* of 64 bytes: room for three images */
    options.role = ESHM_ROLE_MASTER;
    ESHMHandle *camera = eshm_open(&options);
    options.role = ESHM_ROLE_SLAVE;
    ESHMHandle *display = eshm_open(&options);
    if (camera == NULL || display == NULL) {
        return give_up();
    }
    for (int number = 0; number < 100; number++) {
        void *image;
        ESHMView seen;
        if (eshm_claim(camera, IMAGE, &image, 1000) != ESHM_SUCCESS) {
            return give_up();
        }
        memset(image, number, IMAGE); /* drawn where it will be read */
        if (eshm_commit(camera, IMAGE) != ESHM_SUCCESS
            || eshm_peek(display, &seen, NULL, 1000) != ESHM_SUCCESS) {
            return give_up();
        }
        printf("image %d of %zu bytes at %p\n", number, seen.size, seen.data);
        if (eshm_release(display) != ESHM_SUCCESS) {
            return give_up();
        }
    }
    eshm_destroy(display);
    return eshm_destroy(camera);
}
