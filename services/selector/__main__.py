from services.selector.app import main

if __name__ == "__main__":
    main()
