/** Addresses and subnets, as this room's own files know them. */
export * from "../base/address.ts";
