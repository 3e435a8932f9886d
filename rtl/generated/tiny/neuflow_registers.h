/* Register map of neuflow; generated from neuflow/layout.py. */
#pragma once

#define NEUFLOW_ID                   0x00u /* ro: identity, 0x6E657546 ("neuF") */
#define NEUFLOW_VERSION              0x04u /* ro: hardware version, major << 16 | minor */
#define NEUFLOW_GRID_HASH            0x08u /* ro: first 32 bits of the hash of the grid's parameters */
#define NEUFLOW_PARAMETERS           0x0Cu /* ro: columns | maps << 8 | pixels << 16 | bus words << 24 */
#define NEUFLOW_CONTROL              0x10u /* rw: bit 0: start (reads 0); bit 1: interrupt enable */
#define NEUFLOW_STATUS               0x14u /* rw: bit 0: busy; bit 1: done (write 1 to clear); bits 15:8: error code */
#define NEUFLOW_PROGRAM              0x18u /* rw: address of the device section, in units of 4 KB */
#define NEUFLOW_INPUT                0x1Cu /* rw: address of the ring of inputs, in units of 4 KB */
#define NEUFLOW_OUTPUT               0x20u /* rw: address of the ring of outputs, in units of 4 KB */
#define NEUFLOW_FRAMES               0x24u /* rw: frames to run, 1 or more */
#define NEUFLOW_RING                 0x28u /* rw: frames that the rings hold; the frame after starts over; 0: all */
#define NEUFLOW_WATCHDOG             0x2Cu /* rw: cycles without progress until error HANG; 0: never */
#define NEUFLOW_CYCLES               0x30u /* ro: cycles from start to done, low word */
#define NEUFLOW_CYCLES_HIGH          0x34u /* ro: high word */
#define NEUFLOW_FRAMES_DONE          0x38u /* ro: frames finished */
#define NEUFLOW_PROGRAM_COUNTER      0x3Cu /* ro: word of the program that is being worked on */
#define NEUFLOW_CONFIG_WORDS         0x40u /* ro: configuration words sent */
#define NEUFLOW_CONFIG_STALLS        0x44u /* ro: cycles a configuration word waited for its unit */
#define NEUFLOW_FENCE_STALLS         0x48u /* ro: cycles a fence waited */
#define NEUFLOW_MAC_CYCLES           0x4Cu /* ro: cycles an array issued a tap, summed over the columns */
#define NEUFLOW_ROWS_STALLS          0x50u /* ro: cycles an array waited for rows, summed */
#define NEUFLOW_WEIGHTS_STALLS       0x54u /* ro: cycles an array waited for weights, summed */
#define NEUFLOW_DRAIN_STALLS         0x58u /* ro: cycles an array waited for its drain, summed */
#define NEUFLOW_IDLE_CYCLES          0x5Cu /* ro: cycles an array had no configuration, summed */
#define NEUFLOW_READ_BEATS           0x60u /* ro: beats read from memory */
#define NEUFLOW_WRITE_BEATS          0x64u /* ro: beats written to memory */

#define NEUFLOW_ID_VALUE             0x6E657546u
#define NEUFLOW_VERSION_VALUE        0x00010000u
#define NEUFLOW_ERROR_NONE                 0u
#define NEUFLOW_ERROR_ILLEGAL_INSTRUCTION  1u
#define NEUFLOW_ERROR_READ_RESPONSE        2u
#define NEUFLOW_ERROR_WRITE_RESPONSE       3u
#define NEUFLOW_ERROR_HANG                 4u
