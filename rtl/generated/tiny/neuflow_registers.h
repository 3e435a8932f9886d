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
#define NEUFLOW_READ_BEATS           0x50u /* ro: beats read from memory */
#define NEUFLOW_WRITE_BEATS          0x54u /* ro: beats written to memory */
#define NEUFLOW_CONFIG_HIDDEN        0x58u /* ro: cycles a configuration word moved and an array issued a tap */
#define NEUFLOW_USEFUL               0x5Cu /* ro: MACs: a tap: lanes that are output positions, maps that exist; products with zeros are among them; low word */
#define NEUFLOW_USEFUL_HIGH          0x60u /* ro: high word */
#define NEUFLOW_EDGE_LANES           0x64u /* ro: MACs: a tap: lanes that are no output position (row ends, end of the last group), all maps; low word */
#define NEUFLOW_EDGE_LANES_HIGH      0x68u /* ro: high word */
#define NEUFLOW_MAP_REMAINDER        0x6Cu /* ro: MACs: a tap: output positions, maps of the last block that do not exist; low word */
#define NEUFLOW_MAP_REMAINDER_HIGH   0x70u /* ro: high word */
#define NEUFLOW_FILL                 0x74u /* ro: cycles, summed over the columns: the array has a configuration, and the coordinates of its next group are not made yet */
#define NEUFLOW_WAIT_INPUT           0x78u /* ro: cycles, summed over the columns: the array waits for rows */
#define NEUFLOW_WEIGHT_LOAD          0x7Cu /* ro: cycles, summed over the columns: the array waits for weights */
#define NEUFLOW_WAIT_OUTPUT          0x80u /* ro: cycles, summed over the columns: the array waits for its drain, or has ended before it; the drain is held back */
#define NEUFLOW_OUTPUT_DRAIN         0x84u /* ro: cycles, summed over the columns: as WAIT_OUTPUT, but the drain is not held back in this cycle */
#define NEUFLOW_DEPENDENCY           0x88u /* ro: cycles, summed over the columns: the tile has no work: a fence, or the end of the frame, waits for writes */
#define NEUFLOW_CONFIGURATION        0x8Cu /* ro: cycles, summed over the columns: the tile has no work: the program is fetched, decoded or sent */
#define NEUFLOW_IDLE_TILE            0x90u /* ro: cycles, summed over the columns: the tile has no work: the configuration bus waits for a unit that is busy */

#define NEUFLOW_ID_VALUE             0x6E657546u
#define NEUFLOW_VERSION_VALUE        0x00020000u
#define NEUFLOW_ERROR_NONE                 0u
#define NEUFLOW_ERROR_ILLEGAL_INSTRUCTION  1u
#define NEUFLOW_ERROR_READ_RESPONSE        2u
#define NEUFLOW_ERROR_WRITE_RESPONSE       3u
#define NEUFLOW_ERROR_HANG                 4u
#define NEUFLOW_CAUSE_USEFUL               0u
#define NEUFLOW_CAUSE_EDGE_LANES           1u
#define NEUFLOW_CAUSE_MAP_REMAINDER        2u
#define NEUFLOW_CAUSE_FILL                 3u
#define NEUFLOW_CAUSE_WAIT_INPUT           4u
#define NEUFLOW_CAUSE_WEIGHT_LOAD          5u
#define NEUFLOW_CAUSE_WAIT_OUTPUT          6u
#define NEUFLOW_CAUSE_OUTPUT_DRAIN         7u
#define NEUFLOW_CAUSE_DEPENDENCY           8u
#define NEUFLOW_CAUSE_CONFIGURATION        9u
#define NEUFLOW_CAUSE_IDLE_TILE            10u
#define NEUFLOW_ACTIVITY_MAC               0u
#define NEUFLOW_ACTIVITY_WAIT_ROWS         1u
#define NEUFLOW_ACTIVITY_WAIT_WEIGHTS      2u
#define NEUFLOW_ACTIVITY_WAIT_DRAIN        3u
#define NEUFLOW_ACTIVITY_IDLE              4u
#define NEUFLOW_ACTIVITY_DRAIN             5u
#define NEUFLOW_ACTIVITY_ALU               6u
#define NEUFLOW_ACTIVITY_WINDOW            7u
#define NEUFLOW_ACTIVITY_MAPPER            8u
#define NEUFLOW_ACTIVITY_READ_ROWS         9u
#define NEUFLOW_ACTIVITY_READ_WEIGHTS      10u
#define NEUFLOW_ACTIVITY_READ_OPERAND      11u
#define NEUFLOW_ACTIVITY_WRITE             12u
#define NEUFLOW_ACTIVITY_WRITE_DONE        13u
#define NEUFLOW_ACTIVITY_CONFIG            14u
#define NEUFLOW_ACTIVITY_BITS              32u
#define NEUFLOW_SCRATCHPAD_BASE            0x80000000u /* words */
#define NEUFLOW_ACTIVITY_FIELD_FLAGS       0x0000FFFFu
#define NEUFLOW_ACTIVITY_FIELD_CAUSE       0x000F0000u
#define NEUFLOW_ACTIVITY_FIELD_LANES       0x03F00000u
#define NEUFLOW_ACTIVITY_FIELD_MAPS        0xFC000000u
