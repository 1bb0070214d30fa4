"""The command line, `tower`: one file a group of commands. Arguments in, sentences and tables out; everything else is in other rooms."""
